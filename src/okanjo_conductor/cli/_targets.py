"""What ``conductor run`` is to run: a Conductor, a worker class or a function, by file or module.

A file is imported as the module of its name, with its folder in front of ``sys.path``, as if its
script ran: so the worker processes can import it too, and values of its classes can be pickled. A
file in a package is imported as that module of the package.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

from okanjo_conductor._plain import Frozen
from okanjo_conductor.cli._errors import UsageError, did_you_mean
from okanjo_conductor.errors import ConductorStateError, WorkerStartError

if TYPE_CHECKING:
    from types import ModuleType

    from okanjo_conductor._conductor import Conductor

_DEFAULT = "conductor"


class Target(Frozen):
    """What was found."""

    name: str
    """As it was typed."""
    conductor: Conductor | None
    worker: Any
    """A function or a ConductorWorker class, or None."""


def find(text: str) -> Target:
    """Find a target.

    Raises:
        UsageError: there is no such file, module or name, or it cannot be run.
    """
    place, name = _parted(text)
    module = _imported_file(place) if place.endswith(".py") else _imported_module(place)
    found = _named(text, module, name) if name else _only_conductor(text, module)
    if _is_conductor(found):
        if found._has_started:
            message = f"{text} ran its conductor when it was imported. {_GUARD}"
            raise UsageError(message)
        return Target(text, found, None)
    if callable(found):
        return Target(text, None, found)
    message = f"{text} is a {type(found).__name__}: a Conductor, a function or a ConductorWorker"
    raise UsageError(message)


def _parted(text: str) -> tuple[str, str]:
    if text.endswith(".py"):
        return text, ""
    place, colon, name = text.rpartition(":")
    if not colon:
        return text, ""
    if not (place and name):
        message = f"{text}: write FILE.py:NAME or pkg.mod:NAME"
        raise UsageError(message)
    return place, name


def _imported_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        message = f"{path}: there is no such file{_near_files(path)}"
        raise UsageError(message)
    folder, name = os.path.split(os.path.abspath(path))
    name = name.removesuffix(".py")
    if "." in name or not name:
        message = f"{path}: a file name with a dot cannot be imported; rename it"
        raise UsageError(message)
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        name = f"{package}.{name}"
    sys.path.insert(0, folder)
    known = sys.modules.get(name)
    if known is not None:
        message = f"{path}: its name is that of the module {name!r}, which is in use; rename it"
        raise UsageError(message)
    return _imported(path, name)


def _imported_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    if os.path.isfile(f"{name}.py") and "/" in name:
        message = f"{name}: a module is written pkg.mod, and a file {name}.py"
        raise UsageError(message)
    return _imported(name, name)


def _imported(text: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            message = f"{text} cannot be loaded: {_told(error)}"
            raise UsageError(message) from error
        is_file = os.path.isfile(f"{text}.py")
        hint = f"; did you mean {text}.py?" if is_file else _near_files(text)
        message = f"no module is named {error.name!r}{hint}"
        raise UsageError(message) from error
    except Exception as error:
        message = f"{text} cannot be loaded: {_told(error)}"
        raise UsageError(message) from error


def _told(error: Exception) -> str:
    """Say what the code of a module raised, and where."""
    if isinstance(error, WorkerStartError | ConductorStateError):
        return f"it runs its conductor when it is imported. {_GUARD}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        where = ""  # it says so itself
    return f"{type(error).__name__}: {error}{where}"


_GUARD = 'Write: if __name__ == "__main__": conductor.run()'


def _named(text: str, module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [known for known in dir(found) if not known.startswith("_")]
            near = did_you_mean(part, known)
            message = f"{text}: there is no {part!r} in {module.__name__}{near}"
            raise UsageError(message)
        found = getattr(found, part)
    return found


def _only_conductor(text: str, module: ModuleType) -> Any:
    found = {name: value for name, value in vars(module).items() if _is_conductor(value)}
    if _DEFAULT in found:
        return found[_DEFAULT]
    if len(set(map(id, found.values()))) == 1:
        return next(iter(found.values()))
    names = list(found) or _workers_in(module)
    listed = f": {', '.join(f'{text}:{name}' for name in names)}" if names else ""
    how_many = "more than one Conductor" if found else "no Conductor"
    message = f"{text} has {how_many}; say what is to be run{listed}"
    raise UsageError(message)


def _workers_in(module: ModuleType) -> list[str]:
    """Name the functions and worker classes that a module defines."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and callable(value)
        and (not isinstance(value, type) or hasattr(value, "process_job"))
    ]


def _is_conductor(value: Any) -> bool:
    # Who has none has not loaded the class.
    module = sys.modules.get("okanjo_conductor._conductor")
    return module is not None and isinstance(value, module.Conductor)


def _near_files(path: str) -> str:
    folder = os.path.dirname(path)
    try:
        names = [name for name in os.listdir(folder or ".") if name.endswith(".py")]
    except OSError:
        return ""
    return did_you_mean(path, [os.path.join(folder, name) for name in names])
