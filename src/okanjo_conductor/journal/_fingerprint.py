"""What must stay the same between runs of a journal, kept so that a change can be shown.

Of the worker's module it is what the worker *reaches*: its own definition, the definitions of the
same file whose names it mentions, theirs, and so on. So in a script the call of `Conductor`, with
options that change nothing about outcomes, does not count. Two texts are the same if they parse to
the same, docstrings apart: comments and layout do not count. What is imported from other files is
not followed; that is what ``version=`` is for.
"""

from __future__ import annotations

import ast
import json
import linecache
import sys
from typing import TYPE_CHECKING, Any

from okanjo_conductor._plain import Frozen
from okanjo_conductor.journal._keys import hash_of
from okanjo_conductor.journal._values import json_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST_LINES = 60
"""Of the difference between two texts."""
_SHOWN = 80
"""Characters of an option's value."""
_PACKAGE = __name__.split(".", 1)[0]
_MAIN = "__main__"


class Fingerprint(Frozen):
    """The parts of a program that its outcomes depend on."""

    sources: dict[str, str]
    """Text by what it is of: the worker, classes it inherits from, ``job_key``."""
    options: dict[str, str]
    """``worker_options``, each as a text that is the same if the value is."""
    version: str | None

    @classmethod
    def of(
        cls,
        worker: Any,
        worker_options: dict[str, Any] | bytes | None = None,
        job_key: Any = None,
        version: str | None = None,
    ) -> Fingerprint:
        """Take the fingerprint of a program.

        Args:
            worker: as `Conductor` was given it: a class, a function, ``"module:name"``, or None for
                a script that makes its own.
            worker_options: a dict, or the pickle of one.
        """
        sources = dict(_sources_of(worker))
        if job_key is not None:
            sources["job_key"] = _source_of(job_key) or _repr(job_key)
        if isinstance(worker_options, bytes):
            worker_options = _unpickled(worker_options)
        options = {name: _comparable(value) for name, value in (worker_options or {}).items()}
        if hasattr(worker, "func") and hasattr(worker, "keywords"):  # functools.partial
            options["(functools.partial)"] = _comparable([list(worker.args), worker.keywords])
        return cls(sources, options, None if version is None else str(version))

    @property
    def text(self) -> str:
        """All of it, to be kept."""
        return json.dumps([self.sources, self.options, self.version])

    @classmethod
    def from_text(cls, text: str) -> Fingerprint:
        """Read it back."""
        return cls(*json.loads(text))

    def differences(self, new: Fingerprint) -> str:
        """Say what is different in a new one, as lines of text; ``""``: nothing."""
        return "\n".join(self._differences(new))

    def _differences(self, new: Fingerprint) -> Iterator[str]:
        if self.version != new.version:
            yield f"version: {self.version!r} became {new.version!r}"
        for name in sorted({*self.options, *new.options}):
            was, now = self.options.get(name, "(not given)"), new.options.get(name, "(not given)")
            if was != now:
                yield f"worker_options[{name!r}]: {_shown(was)} became {_shown(now)}"
        for name in {**self.sources, **new.sources}:
            yield from _changes(name, self.sources.get(name), new.sources.get(name))


def _changes(name: str, was: str | None, now: str | None) -> Iterator[str]:
    if was is None or now is None:
        if name == "job_key":
            yield "job_key: " + (
                "none was given, now one is" if was is None else "is not given now"
            )
        return
    if not was or not now or _parsed(was) == _parsed(now):
        return
    import difflib

    lines = list(
        difflib.unified_diff(was.splitlines(), now.splitlines(), "before", "now", "", "", 2)
    )
    yield f"{name}:"
    yield from (f"    {line.rstrip()}" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"    … and {len(lines) - _MOST_LINES} more lines"


def _unpickled(options: bytes) -> dict[str, Any]:
    from okanjo_conductor._wire import pickling

    return dict(pickling.loads(options))


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _parsed(text: str) -> str:
    """Return what does not depend on comments, layout and docstrings."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return ast.dump(tree)


def _is_docstring(statement: object) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _comparable(value: Any) -> str:
    from okanjo_conductor.errors import JobKeyError

    text = json_of(value)
    if text is not None:
        return text
    try:
        return f"{type(value).__qualname__} {hash_of(value)}"
    except JobKeyError:
        return f"{type(value).__qualname__} (not compared)"


# Where texts come from


def _sources_of(worker: Any) -> Iterator[tuple[str, str]]:
    if worker is None:
        yield "the script", _definitions(_text_of_module(_MAIN))
    elif isinstance(worker, str):
        module, _, name = worker.partition(":")
        yield "worker", reached(_text_of_spec(module), [name.split(".", 1)[0]])
    elif isinstance(worker, type):
        for kind in _own_classes(worker):
            name = "worker" if kind is worker else f"class {kind.__qualname__}"
            yield name, _source_of(kind)
    elif not _is_installed(getattr(_unwrapped(worker), "__module__", None) or ""):
        yield "worker", _source_of(worker)


def _own_classes(worker: type) -> list[type]:
    """Return a class and those it inherits from, without Python's and ours."""
    return [kind for kind in worker.__mro__ if not _is_installed(kind.__module__)]


def _is_installed(module: str) -> bool:
    """Whether a module came with Python, with us or from a package: it has a version of its own."""
    if module == _MAIN:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    top = module.split(".", 1)[0]
    return top in sys.stdlib_module_names or top == _PACKAGE or "-packages/" in file


def _repr(obj: object) -> str:
    """Return a repr without the address of the object."""
    return repr(obj).partition(" at 0x")[0]


def _source_of(obj: Any) -> str:
    """Return the text that a class or function is made of, or ``""`` where there is none."""
    obj = _unwrapped(obj)
    if not isinstance(obj, type) and not hasattr(obj, "__code__"):
        if _is_installed(type(obj).__module__):
            return ""
        obj = type(obj)
    text = _text_around(obj)
    path = getattr(obj, "__qualname__", "").split(".")
    if len(path) > 1 or path == ["<lambda>"]:
        return _inner(text, obj, path)
    return reached(text, path)


def _unwrapped(obj: Any) -> Any:
    while True:
        if hasattr(obj, "func") and hasattr(obj, "keywords"):  # functools.partial
            obj = obj.func
        elif hasattr(obj, "__func__"):  # a bound method
            obj = obj.__func__
        elif hasattr(obj, "__wrapped__"):
            obj = obj.__wrapped__
        else:
            return obj


def _text_around(obj: Any) -> str:
    """Return the text of the file that something is defined in; cells of a notebook are files."""
    code = getattr(obj, "__code__", None)
    if code is None and isinstance(obj, type):
        members = (getattr(member, "__func__", member) for member in vars(obj).values())
        own = (m for m in members if getattr(m, "__module__", None) == obj.__module__)
        code = next((m.__code__ for m in own if hasattr(m, "__code__")), None)
    if code is None:
        return _text_of_module(getattr(obj, "__module__", None) or "")
    return "".join(linecache.getlines(code.co_filename))


def _text_of_module(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    return "".join(linecache.getlines(file)) if file and file.endswith(".py") else ""


def _text_of_spec(module: str) -> str:
    import importlib.util

    spec = importlib.util.find_spec(module)
    origin = None if spec is None else spec.origin
    return "".join(linecache.getlines(origin)) if origin and origin.endswith(".py") else ""


def _inner(text: str, obj: Any, path: list[str]) -> str:
    """Return the text of something that is defined within something else, and what it reaches."""
    tree = _tree_of(text)
    code = getattr(obj, "__code__", None)
    nodes = [node for node in ast.walk(tree) if _is_definition_of(node, path[-1], code)]
    names = {name for node in nodes for name in _names_in(node)}
    own = [ast.get_source_segment(text, node) or "" for node in nodes]
    return "\n".join([reached(text, sorted(names)), *own]).strip()


def _is_definition_of(node: ast.AST, name: str, code: Any) -> bool:
    if isinstance(node, ast.Lambda):
        return code is not None and name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, _DEFINITIONS) or node.name != name:
        return False
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return code is None or first == code.co_firstlineno


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _tree_of(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def reached(text: str, names: Iterable[str]) -> str:
    """Return the statements of a file that define these names, or what those mention, and so on."""
    tree = _tree_of(text)
    makers: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in _made_by(statement):
            makers.setdefault(name, []).append(statement)
    found: set[ast.stmt] = set()
    open_names = list(names)
    seen = set(open_names)
    while open_names:
        for statement in makers.get(open_names.pop(), ()):
            if statement not in found:
                found.add(statement)
                new = _names_in(statement) - seen
                seen |= new
                open_names += new
    return _joined(text, [s for s in tree.body if s in found], seen)


def _definitions(text: str) -> str:
    kinds = (*_DEFINITIONS, ast.Import, ast.ImportFrom)
    return _joined(text, [s for s in _tree_of(text).body if isinstance(s, kinds)], set())


def _joined(text: str, statements: list[ast.stmt], names: set[str]) -> str:
    """Return the text of statements; of imports what they bind of these names, where there are."""
    lines = text.splitlines()
    parts: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [a for a in statement.names if not names or _bound_by(a) in names]
            parts.append(ast.unparse(statement))
            continue
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)])
        parts.append("\n".join(lines[first - 1 : statement.end_lineno]))
    return "\n".join(parts)


def _made_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a file binds."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    made: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        elif isinstance(node, ast.alias):
            made.add(_bound_by(node))
        elif isinstance(node, _DEFINITIONS):
            made.add(node.name)
    return made


def _bound_by(alias: ast.alias) -> str:
    return (alias.asname or alias.name).split(".", 1)[0]


def _names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
