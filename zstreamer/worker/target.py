"""Which model a child loads: a name to import, or an object that came as opaque bytes.

The bytes go from a program to its own workers on the same machine and are opened only in the
child, never by a broker or an agent, and never anything from a network.
"""

from __future__ import annotations

import base64
import difflib
import importlib
import inspect
import io
import multiprocessing.spawn
import pickle
import sys
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from zstreamer import failure
from zstreamer.model import Loaded
from zstreamer.setting import ConfigError


@dataclass(frozen=True, slots=True)
class Description:
    """What a child needs to know to load its model.

    Attributes:
        name: "module:attribute"; empty where ``pickled`` is given.
        pickled: what `freeze` returned, or empty.
        device: what the model gets as gpu_id; empty for none.
        paths: folders to import from first.
        args, kwargs: for init_model, where ``name`` is given.
        workers: how many its command runs on this machine, for all models; they share its cores.
        log_level: the least that this package logs in the child.
        private: items come from the owner alone, and may be pickles.
        log_format: what a line of its log is: text or json.
        model: the name that clients ask for.
        tracing: how to set OpenTelemetry up; empty where the model's own code does, or nobody.
        prepare_workers: processes that prepare for it.
        predict_timeout: seconds before a group of items that is prepared there counts as hung.
    """

    name: str
    pickled: str = ""
    device: str = ""
    paths: list[str] = field(default_factory=list)
    args: list[object] = field(default_factory=list)
    kwargs: dict[str, object] = field(default_factory=dict)
    workers: int = 1
    log_level: str = "warning"
    private: bool = False
    log_format: str = "text"
    prepare_workers: int = 0
    predict_timeout: float | None = None
    model: str = ""
    tracing: str = ""

    def to_bytes(self) -> bytes:
        """Return the description as bytes for `from_bytes`."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Description:
        """Return the description that `to_bytes` wrote."""
        return cls(**msgpack.unpackb(data))


class TargetError(Exception):
    """The model is not there, or no model; its text is for people, without a traceback."""


class _Frozen(NamedTuple):
    source: object
    args: Sequence[object]
    kwargs: dict[str, object]
    gpu_ids: dict[str, str | int]


def freeze(
    source: object,
    args: Sequence[object],
    kwargs: dict[str, object],
    gpu_ids: dict[str, str | int] | None = None,
) -> str:
    """Return a model and its arguments as text, for a child of this program.

    Args:
        source: what `Loaded` takes.
        args: for init_model.
        kwargs: for init_model.
        gpu_ids: what the model gets as gpu_id, by the name of its device.

    Raises:
        TypeError: they cannot be pickled, or live where a child cannot import them (a notebook, a
            prompt); the message says what to do instead.
        RuntimeError: this process is itself being started for a model, which means that the
            program starts its workers without an ``if __name__ == "__main__":`` guard.
    """
    refuse_unguarded_main()
    body = io.BytesIO()
    pickler = _Pickler(body)
    try:
        pickler.dump(_Frozen(source, tuple(args), dict(kwargs), dict(gpu_ids or {})))
    except Exception as error:  # pickling runs the user's __reduce__, which may raise anything
        raise TypeError(
            f"{source!r} cannot be sent to a worker process ({error}). Give a class or a function "
            "defined at the top of a module, and load what cannot be pickled (models, locks, "
            "connections) in init_model; or use ThreadedStreamer, which stays in this process"
        ) from error
    for module, found in pickler.homes.items():
        if place := _out_of_reach(module):
            raise TypeError(
                f"{found} is defined in {place}, which a worker process cannot import. Put it "
                'into a module (a .py file) and import it from there; or use mp_start_method="fork"'
                ", which needs no import, or ThreadedStreamer, which stays in this process"
            )
    head = pickle.dumps((*_preparations(), "__main__" in pickler.homes))
    return base64.b64encode(head + body.getvalue()).decode()


class _Pickler(pickle.Pickler):
    """Notes where the classes and functions live to which a pickle refers.

    Attributes:
        homes: for each module the first of them, in words.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.homes: dict[str, str] = {}

    def reducer_override(self, thing: object) -> Any:
        """Called for each class and function, and for all that is not plain."""
        if isinstance(thing, type | types.FunctionType):
            self.homes.setdefault(thing.__module__, f"{thing.__qualname__!r}")
        return NotImplemented


def _out_of_reach(name: str) -> str:
    """Say what a module is that a child cannot import; empty where it can."""
    module = sys.modules.get(name)
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if name != "__main__":
        made_here = module is not None and spec is None and file is None
        return f"module {name!r}, which was made while the program ran" if made_here else ""
    if spec is None:
        return _unnamed_main(file, vars(module))
    if spec.name == "__main__":
        return "the __main__ of a folder or zip file"
    if spec.name.endswith(".__main__"):
        return f"{spec.name} (run as python -m {spec.name.removesuffix('.__main__')})"
    return ""


def _unnamed_main(file: str | None, names: dict[str, object]) -> str:
    """The same of a main module that is no module with a name."""
    if file is not None and Path(file).is_file():
        return ""
    if "get_ipython" in names:
        return "a notebook or an IPython session"
    if file is None:
        return "`python -c`" if sys.argv[:1] == ["-c"] else "an interactive session"
    return f"what Python reads from {file}"


def refuse_unguarded_main() -> None:
    """Raise RuntimeError where this process is importing its program's main module for a model."""
    if _importing_main:
        raise RuntimeError(
            "a worker process imports the main module to find its model, and that module starts "
            'workers when imported. Put the start under `if __name__ == "__main__":`'
        )


_importing_main = False


def _preparations() -> tuple[dict[str, object], dict[str, object]]:
    """What a child needs to find the names that a model refers to, as `multiprocessing` has it.

    The second is for the main module. It is imported only where the model lives in it, or an item
    of a class that does: that runs its top level again.
    """
    known = multiprocessing.spawn.get_preparation_data("zstreamer model")
    wanted = ("sys_path", "dir", "orig_dir"), ("init_main_from_name", "init_main_from_path")
    paths, main = ({key: known[key] for key in keys if key in known} for keys in wanted)
    return paths, main


def import_main() -> None:
    """Import the program's main module in its child, if it has not been yet."""
    global _importing_main, _main  # noqa: PLW0603  # a process has one main module
    main, _main = _main, {}
    if main:
        _importing_main = True
        try:
            multiprocessing.spawn.prepare(main)
        finally:
            _importing_main = False


_main: dict[str, object] = {}
"""What `import_main` has still to do."""


def load(description: Description, prepare_only: bool = False) -> Loaded:
    """Load the model, or of it only what prepares.

    Raises:
        TargetError: there is no such module or attribute, or it is no model.
        Exception: whatever the model's own code raises.
    """
    sys.path[:0] = [p for p in description.paths if p not in sys.path]
    device = description.device or None
    if description.pickled:
        frozen = _thaw(description.pickled)
        gpu_id = None if device is None else frozen.gpu_ids.get(device, device)
        return Loaded(frozen.source, gpu_id, frozen.args, frozen.kwargs, prepare_only)
    if description.name.startswith(HUB):
        return _of_hub(description, prepare_only)
    source = resolve(description.name)
    return Loaded(source, device, description.args, description.kwargs, prepare_only)


HUB = "hf:"
"""What stands before the name of a model of the Hugging Face hub."""


def _of_hub(description: Description, prepare_only: bool) -> Loaded:
    """Load a model of the hub; raises TargetError where it or a package is missing."""
    try:
        hub: Any = importlib.import_module("zstreamer.hf")
        found = hub.model(description.name.removeprefix(HUB), **description.kwargs)
        gpu_id = description.device or None
        return Loaded(found, gpu_id, description.args, prepare_only=prepare_only)
    except (ConfigError, ImportError) as error:
        raise TargetError(str(error)) from error


def _thaw(pickled: str) -> _Frozen:
    global _main, _importing_model  # noqa: PLW0603  # one process loads one model, once
    buffer = io.BytesIO(base64.b64decode(pickled))
    paths, _main, with_main = pickle.load(buffer)  # noqa: S301  # our own parent's
    multiprocessing.spawn.prepare(paths)
    if with_main:
        import_main()
    _importing_model = True
    try:
        frozen = pickle.load(buffer)  # noqa: S301
    finally:
        _importing_model = False
    return _Frozen(*frozen)


def importing_model() -> bool:
    """Whether this process is importing a module of the program for the model in it.

    That module may make a `Streamer`, as an app does that a web server imports: in here it must
    start nothing.
    """
    return _importing_model


_importing_model = False


def resolve(name: str) -> object:
    """Return what ``module:attribute`` names.

    Raises:
        TargetError: there is none; the message says what is missing and what was tried.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        if module_name.endswith(".py"):
            plain = module_name.removesuffix(".py")
            raise TargetError(
                f'the model {name!r} names a file: leave out ".py", as in {plain}:{attribute}'
            ) from None
        tried = ", ".join(p or "." for p in sys.path[:3])
        raise TargetError(
            f"no module {error.name!r} for the model {name!r}; looked in {tried}, … "
            "(the current folder is on the path of `zstreamer worker`)"
        ) from None
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise TargetError(
                f"module {module_name!r} has no {attribute!r}{_instead(module_name, found, part)}"
            )
        found = getattr(found, part)
    return found


def _instead(module_name: str, found: object, part: str) -> str:
    """What could have been meant by a name that a module, or a class in it, does not have."""
    names = [each for each in dir(found) if not each.startswith("_")]
    # What it has imported is seldom its model, but may be what a misspelt name means.
    own = [
        each
        for each in names
        if getattr(inspect.getattr_static(found, each, None), "__module__", "") == module_name
    ]
    classes = [each for each in own if each[0].isupper()]
    words = f"; it has {', '.join(classes or own) or 'no class and no function of its own'}"
    if close := difflib.get_close_matches(part, names, n=1):
        words += f"; did you mean {close[0]!r}?"
    return words


def explain(error: BaseException) -> str:
    """Return what a person needs to see of a model that could not be loaded."""
    return str(error) if isinstance(error, TargetError | ConfigError) else failure.trace(error)
