"""Workers of several versions, operators' commands, and callers that check every answer."""

import threading
import time

from click.testing import CliRunner

from zstreamer.cli import group


def version(cluster, name):
    """Start a worker of a version, which answers with its name; return its process."""
    kwargs = {"version": name} if name else {}
    named = {"version": name or "none", "folder": str(cluster.folder)}
    return cluster.worker("Tagged", model="bert", batch_size=8, init_kwargs=named, **kwargs)


def begun(cluster, name):
    """What a version has begun, in the order of its beginning."""
    return (cluster.folder / f"begun-{name}").read_text().splitlines()


def command(cluster, *arguments):
    result = CliRunner().invoke(
        group, [*arguments, "--broker-url", cluster.url], standalone_mode=False
    )
    assert not result.exception, result.output
    return result


class Load:
    """Callers that check every answer, until they are stopped."""

    def __init__(self, cluster, callers=3):
        self.answers = []
        self.wrong = []
        self._client = cluster.client(model="bert", timeout=60)
        self._client.wait_ready(30)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(callers)
        ]

    def _call(self, caller):
        number = 0
        while not self._stop.is_set():
            number += 1
            item = [caller, number]
            try:
                answer, version = self._client.predict([item])[0]
            except Exception as error:
                self.wrong.append(error)
                continue
            if answer != item:
                self.wrong.append((item, answer))
            self.answers.append((time.monotonic(), version))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def versions(self, since=0.0):
        return {version for at, version in list(self.answers) if at > since}
