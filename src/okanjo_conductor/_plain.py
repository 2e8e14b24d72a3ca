"""Plain data: classes whose fields are their annotations, as with dataclasses, and cheap to make.

Every new process makes them anew. A frozen dataclass takes 0.5 ms, because its methods are written
and compiled for it, and `dataclasses` itself another 6 ms to load; a class made here takes 0.03 ms,
because the methods are the same for all.

Type checkers see dataclasses, and so do `dataclasses.fields`, `asdict` and `replace`.
"""

from __future__ import annotations

from operator import itemgetter

TYPE_CHECKING = False  # `typing` takes longer to load than everything else that a worker needs
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self, TypeVar, dataclass_transform

    _T = TypeVar("_T")
else:

    def dataclass_transform(**_options: object) -> Callable[[type], type]:
        """Do nothing: type checkers look at it, nobody else."""
        return lambda kind: kind


class _Fresh:
    """A default that is made anew for each object."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory


def fresh(*, factory: Callable[[], _T]) -> _T:
    """Make a field's default by calling this, for each object anew."""
    return _Fresh(factory)  # type: ignore[return-value]  # as `dataclasses.field` does


class _DataclassFields:
    """What `dataclasses` looks for, made when it does."""

    def __get__(self, _obj: object, kind: _PlainType) -> dict[str, Any]:
        import dataclasses  # only for those who use it

        made: dict[str, Any] = {}
        for name, annotation in kind.__annotations__.items():
            default = kind._defaults.get(name, dataclasses.MISSING)
            if isinstance(default, _Fresh):
                made[name] = dataclasses.field(default_factory=default.factory)
            else:
                made[name] = dataclasses.field(default=default)
            made[name].name, made[name].type = name, annotation
            made[name]._field_type = dataclasses._FIELD  # type: ignore[attr-defined]  # as it does
        return made


class _PlainType(type):
    """The type of all these classes: makes slots of the annotations."""

    names: tuple[str, ...]
    """The fields, in order."""
    _defaults: dict[str, Any]
    _setters: tuple[tuple[str, Callable[[Any, Any], None]], ...]
    _checks: bool

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _PlainType:
        """Make a class."""
        names = tuple(body.get("__annotations__", ()))
        defaults = {field: body.pop(field) for field in names if field in body}
        body["__slots__"] = body["__match_args__"] = names
        made = super().__new__(cls, name, bases, body)
        made.names = names
        made._defaults = defaults
        made._setters = tuple((field, vars(made)[field].__set__) for field in names)
        made._checks = "__post_init__" in body
        return made

    def completed(cls, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        """Return a value for each field, of arguments and defaults."""
        names = cls.names
        if len(args) > len(names):
            message = f"{cls.__name__} has {len(names)} fields, not {len(args)}"
            raise TypeError(message)
        values = dict(zip(names, args, strict=False))
        for name, value in given.items():
            if name not in names or name in values:
                problem = "is given twice" if name in values else "is no field of it"
                message = f"{cls.__name__}: {name!r} {problem}"
                raise TypeError(message)
            values[name] = value
        for name in names[len(args) :]:
            if name not in values:
                values[name] = cls._default(name)
        return values

    def _default(cls, name: str) -> Any:
        try:
            default = cls._defaults[name]
        except KeyError:
            message = f"{cls.__name__}: the field {name!r} is missing"
            raise TypeError(message) from None
        return default.factory() if isinstance(default, _Fresh) else default


class _Base(metaclass=_PlainType):
    __dataclass_fields__ = _DataclassFields()

    if not TYPE_CHECKING:  # they know the arguments

        def __init__(self, *args: Any, **given: Any) -> None:
            kind = self.__class__
            setters = kind._setters
            if args and not given and len(args) == len(setters):
                for index, (_, put) in enumerate(setters):
                    put(self, args[index])
            else:
                if args or len(given) != len(setters):
                    given = kind.completed(args, given)
                try:
                    for name, put in setters:
                        put(self, given[name])
                except KeyError:
                    kind.completed((), given)
                    raise
            if kind._checks:
                self.__post_init__()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).names)
        return f"{self.__class__.__qualname__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, values_of(self)

    def _replace(self, **changes: Any) -> Self:
        """Return a copy with other values in these fields."""
        values = {name: getattr(self, name) for name in type(self).names}
        return self.__class__(**{**values, **changes})

    __replace__ = _replace


def values_of(plain: _Base) -> tuple[Any, ...]:
    """Return the values of all fields, in order."""
    return tuple([getattr(plain, name) for name in type(plain).names])


@dataclass_transform(eq_default=False, field_specifiers=(fresh,))
class Plain(_Base):
    """Base of plain data that changes. Equal to nothing but itself."""


@dataclass_transform(frozen_default=True, field_specifiers=(fresh,))
class Frozen(_Base):
    """Base of plain data that does not change. Equal to what has the same type and values."""

    if not TYPE_CHECKING:  # they know that nothing can be assigned

        def __setattr__(self, name: str, value: object) -> None:
            message = f"{self.__class__.__qualname__} cannot be changed: {name!r} is fixed"
            raise AttributeError(message)

        def __delattr__(self, name: str) -> None:
            self.__setattr__(name, None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frozen) or other.__class__ is not self.__class__:
            return NotImplemented
        return values_of(self) == values_of(other)

    def __hash__(self) -> int:
        return hash(values_of(self))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(fresh,))
class Named(Frozen):
    """Frozen, and made by naming each field."""


class _RowType(_PlainType):
    """The type of rows: fields are places in a tuple."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _RowType:
        """Make a class."""
        names = tuple(body.get("__annotations__", ()))
        body["__slots__"], body["__match_args__"] = (), names
        body.update((field, property(itemgetter(place))) for place, field in enumerate(names))
        made = type.__new__(cls, name, bases, body)
        made.names, made._defaults = names, {}
        return made


if TYPE_CHECKING:

    class _Tuple: ...

else:
    _Tuple = tuple


@dataclass_transform(frozen_default=True)
class Row(_Tuple, metaclass=_RowType):
    """Frozen as well, and a tuple: made in a quarter of the time, for what there is a million of.

    `_make` makes one of the values of all fields, in order.
    """

    __dataclass_fields__ = _DataclassFields()

    if TYPE_CHECKING:  # they know the arguments

        @classmethod
        def _make(cls, _values: Iterable[Any]) -> Self: ...

    else:
        _make = classmethod(tuple.__new__)

        def __new__(cls, *args: Any, **given: Any) -> Self:
            """Make a row of values by place and by name."""
            values = cls.completed(args, given)
            return tuple.__new__(cls, [values[name] for name in cls.names])

    __repr__ = _Base.__repr__
    __reduce__ = _Base.__reduce__
    _replace = __replace__ = _Base._replace
