"""Keys for tests: a folder of them, and files that are wrong in one way each."""

from pathlib import Path

from zstreamer.keys.folder import Folder
from zstreamer.keys.ring import Role


class Keys:
    """A folder of keys as `zstreamer keys` makes it.

    path: where it is to be; it must not exist.
    """

    def __init__(self, path):
        self.path = path
        self.folder = Folder(path)
        self.folder.create()

    def client(self, name, tenant=""):
        """The file of a new client's key."""
        return str(self.folder.add(Role.CLIENT, name, tenant)[1])

    def worker(self, name, *models):
        """The file of a new worker's key."""
        return str(self.folder.add(Role.WORKER, name, models=models)[1])

    def trusting(self, file, other):
        """A copy of a key's file that trusts this broker in place of another one."""
        text = Path(file).read_text()
        text = text.replace(other.folder.servers[0].decode(), self.folder.servers[0].decode())
        copy = self.path / "issued" / "copy.key_secret"
        copy.touch(0o600)
        copy.write_text(text)
        return str(copy)

    def secrets(self):
        """Every secret that is in the folder, as text."""
        found = []
        for path in self.path.rglob("*.key_secret"):
            lines = path.read_text().splitlines()
            found += [line.split('"')[1] for line in lines if "secret-key" in line]
        return found
