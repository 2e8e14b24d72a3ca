r"""Placeholders in commands: what stands for a job's input, and for parts of it.

    {}  {.}  {/}  {//}  {/.}      the input; without its extension; its last part; its folder; both
    {1}  {2}  {-1}  {1/.}         the n-th of several inputs, or column of a row
    {name}  {name.}  {name/}      a field of a CSV or JSON row
    {stem}                        a field of that name, else the same as {/.}
    {#}  {%}                      the number of the job, from 1, and of its slot, from 1
    {{name}}                      a literal {name}

``${name}`` and braces around anything else are left alone. The *input* of a row is its only field,
or the one that is called ``path``. Where a command has no placeholder, ``{}`` is put at its end.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from okanjo_conductor.cli._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PLACEHOLDER = re.compile(
    r"\{(?P<literal>\{[A-Za-z_]\w*(?:\.|//|/\.|/)?\})\}"
    r"|(?<!\$)\{(?:(?P<job>[#%])|(?P<name>-?\d+|[A-Za-z_]\w*)?(?P<part>//|/\.|/|\.)?)\}"
)
SLOT = "\0"
"""Stands for the number of the slot until the worker knows it. No argument can hold it."""
_STEM = "stem"
_MAIN_FIELD = "path"


class Template:
    """A command with placeholders.

    Args:
        words: the command and its arguments.
        shell: whether a shell reads them, joined by spaces; inserted values are quoted then.

    Raises:
        UsageError: there is no command.
    """

    def __init__(self, words: Sequence[str], *, shell: bool = False) -> None:
        if not words or not words[0]:
            message = "no command: conductor exec [options] [--] command [arguments]"
            raise UsageError(message)
        self._shell = shell
        self._words = [" ".join(words)] if shell else list(words)
        if not any(_stands_for_input(word) for word in self._words):
            self._words = [f"{self._words[0]} {{}}"] if shell else [*self._words, "{}"]

    def __str__(self) -> str:
        return self._words[0] if self._shell else shlex.join(self._words)

    def render(self, job: Any, seq: int) -> str | list[str]:
        """Put a job into the command: a text for a shell, or a list of arguments.

        The slot is still missing in it: see `with_slot`.

        Raises:
            UsageError: the job has no such field.
        """
        made = [self._filled(word, job, seq) for word in self._words]
        return made[0] if self._shell else made

    def _filled(self, word: str, job: Any, seq: int) -> str:
        if "{" not in word:
            return word
        quoted: Callable[[str], str] = shlex.quote if self._shell else str

        def insert(match: re.Match[str]) -> str:
            if match["literal"]:
                return match["literal"]
            if match["job"]:
                return str(seq) if match["job"] == "#" else SLOT
            return quoted(_value(match["name"] or "", match["part"] or "", job))

        return _PLACEHOLDER.sub(insert, word)


def with_slot(command: str | list[str], slot: int) -> str | list[str]:
    """Put the number of the slot into a rendered command."""
    if isinstance(command, str):
        return command.replace(SLOT, str(slot + 1))
    return [word.replace(SLOT, str(slot + 1)) for word in command]


def shown(command: str | list[str]) -> str:
    """Write a rendered command as one would type it."""
    text = command if isinstance(command, str) else shlex.join(command)
    return text.replace(SLOT, "{%}")


def inputs(job: Any) -> list[tuple[str, str]]:
    """Name the inputs of a job: number or field, and value."""
    if isinstance(job, dict):
        return [(str(name), _text(value)) for name, value in job.items()]
    many = job if isinstance(job, list | tuple) else [job]
    return [(str(number), _text(value)) for number, value in enumerate(many, 1)]


def _stands_for_input(word: str) -> bool:
    return any(not match["literal"] for match in _PLACEHOLDER.finditer(word))


def _value(name: str, part: str, job: Any) -> str:
    if name == _STEM and not (isinstance(job, dict) and _STEM in job):
        name, part = "", part or "/."
    if name and (name.isdigit() or name.startswith("-")):
        text = _numbered(int(name), job)
    elif name:
        text = _field(name, job)
    else:
        text = _main(job)
    return _PARTS[part](text)


def _main(job: Any) -> str:
    if isinstance(job, list | tuple):
        return " ".join(map(_text, job))
    if not isinstance(job, dict):
        return _text(job)
    if len(job) == 1:
        return _text(next(iter(job.values())))
    if _MAIN_FIELD in job:
        return _text(job[_MAIN_FIELD])
    message = f"{{}}: a job has {len(job)} fields here, and none is called path; {_fields(job)}"
    raise UsageError(message)


def _field(name: str, job: Any) -> str:
    if isinstance(job, dict):
        if name in job:
            return _text(job[name])
        message = f"{{{name}}}: a job has no such field; {_fields(job)}"
        raise UsageError(message + did_you_mean(name, map(str, job)))
    message = (
        f"{{{name}}}: the jobs are no rows with fields; a literal {{{name}}} is {{{{{name}}}}}"
    )
    raise UsageError(message)


def _numbered(number: int, job: Any) -> str:
    values = inputs(job)
    index = number - 1 if number > 0 else number
    if number and -len(values) <= index < len(values):
        return values[index][1]
    message = f"{{{number}}}: a job has {len(values)} input{'s' * (len(values) != 1)}"
    raise UsageError(message)


def _fields(job: dict[Any, Any]) -> str:
    return f"there are: {', '.join(f'{{{name}}}' for name in job) or 'none'}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


def _without_extension(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return folder or slash or "."


_PARTS: dict[str, Callable[[str], str]] = {
    "": str,
    ".": _without_extension,
    "/": _last,
    "//": _folder,
    "/.": lambda path: _last(_without_extension(path)),
}
