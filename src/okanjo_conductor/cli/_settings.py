"""Settings: what ``[tool.okanjo-conductor]`` and the environment say, as options.

They are put before what was typed, so that what was typed wins; the environment wins over the file.
The file is the ``pyproject.toml`` of the working directory, or of the nearest folder above that has
one. Names are those of the options: ``max-failures = "5%"``, ``OKANJO_CONDUCTOR_MAX_FAILURES=5%``.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from argparse import Action
    from collections.abc import Iterator, Mapping

    from okanjo_conductor.cli._parser import Parser

NAMES = (
    "workers",
    "timeout",
    "retries",
    "max-failures",
    "halt",
    "concurrency",
    "shell",
    "keep-order",
    "format",
    "journal",
    "joblog",
    "results",
    "duplicates",
    "durability",
    "bar",
    "eta",
    "report",
    "quiet",
    "verbose",
)
_PREFIX = "OKANJO_CONDUCTOR_"
_NO_SETTINGS = ("OKANJO_CONDUCTOR_RETRY", "OKANJO_CONDUCTOR_TEST")
"""By the first, ``retry`` tells a program what to do; by the other, tests know their processes."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def as_arguments(parser: Parser, environ: Mapping[str, str], folder: str) -> list[str]:
    """Return the settings as arguments for this parser.

    Raises:
        UsageError: a setting is unknown, or makes no sense.
    """
    made: list[str] = []
    for place, name, value in (*_from_file(folder), *_from_environment(environ)):
        action = parser._option_string_actions.get(f"--{name}")
        if action is not None:
            made += _argument(place, name, action, value)
    return made


def _from_file(folder: str) -> Iterator[tuple[str, str, Any]]:
    path = _pyproject(folder)
    if path is None:
        return
    for name, value in _table(path).items():
        if name not in NAMES:
            near = did_you_mean(name, NAMES)
            message = f"{path}: [tool.okanjo-conductor] knows no setting {name!r}{near}"
            raise UsageError(message)
        yield f"{path}: {name}", name, value


def _pyproject(folder: str) -> str | None:
    while True:
        path = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(path):
            return path
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above


def _table(path: str) -> dict[str, Any]:
    import tomllib  # only where there is such a file

    try:
        with open(path, "rb") as file:
            found: Any = tomllib.load(file).get("tool", {}).get("okanjo-conductor", {})
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}"
        raise UsageError(message) from error
    if not isinstance(found, dict):
        message = f"{path}: tool.okanjo-conductor is no table"
        raise UsageError(message)
    return found


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    for variable, value in environ.items():
        if not variable.startswith(_PREFIX) or variable in _NO_SETTINGS:
            continue
        name = variable.removeprefix(_PREFIX).lower().replace("_", "-")
        if name not in NAMES:
            known = [_PREFIX + known.upper().replace("-", "_") for known in NAMES]
            message = f"{variable} is no setting{did_you_mean(variable, known)}"
            raise UsageError(message)
        yield variable, name, value


def _argument(place: str, name: str, action: Action, value: Any) -> list[str]:
    if action.nargs == 0:
        return _flag(place, name, action, value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"{place}: a number or a text, not {value!r}"
        raise UsageError(message)
    text = str(value)
    try:
        if callable(action.type):
            action.type(text)
    except ArgumentTypeError as error:
        message = f"{place}: {error}"
        raise UsageError(message) from error
    if action.choices is not None and text not in action.choices:
        message = f"{place}: {text!r} is none of {', '.join(map(str, action.choices))}"
        raise UsageError(message)
    return [f"--{name}={text}"]


def _flag(place: str, name: str, action: Action, value: Any) -> list[str]:
    text = str(value).lower()
    if name == "verbose" and text in "0123":
        return ["--verbose"] * int(text)
    if text not in _TRUE + _FALSE:
        message = f"{place}: true or false, not {value!r}"
        raise UsageError(message)
    if text in _TRUE:
        return [f"--{name}"]
    return [f"--no-{name}"] if f"--no-{name}" in action.option_strings else []
