"""Exceptions, taken apart and rebuilt: the story survives whatever the exception does."""

from __future__ import annotations

import copyreg
import traceback
from asyncio import CancelledError
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okanjo_conductor._wire import failures
from okanjo_conductor._wire.failures import Failure
from okanjo_conductor.errors import RemoteError, RemoteTraceback, UnknownLookupError

from .streams import texts


class ShownError(Exception):
    """One that pickles although its arguments are not those of its message."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("holds a function")
        self.function = lambda: None


class RefusesToPickleError(Exception):
    def __reduce__(self):
        raise SystemExit(3)


class TwoArgumentsError(Exception):
    """Unpickling calls it with one argument: the classic."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port} is closed")


class RebuiltBy(Exception):  # noqa: N818 - completed by what rebuilds it
    """Unpickled by calling a function."""

    def __init__(self, function) -> None:
        super().__init__("rebuilt otherwise")
        self.function = function

    def __reduce__(self):
        return self.function, ()


def leave():
    raise SystemExit(1)


def fail():
    raise OSError("not over here")


class OddError(BaseException):
    """No `Exception`."""


def be_odd():
    raise OddError("on the way")


def interrupt():
    raise KeyboardInterrupt


class OddToPickleError(Exception):
    def __reduce__(self):
        raise OddError("at the start")


def give_a_text():
    return "not an exception"


class SilentError(Exception):
    def __str__(self) -> str:
        raise self.args[0]


class Markup(str):
    __slots__ = ()


class MarkupError(Exception):
    def __str__(self) -> str:
        return Markup("marked up")


@dataclass(frozen=True, slots=True)
class FrozenError(Exception):
    code: int


class OwnCauseError(Exception):
    """Its traceback cannot be formatted."""

    @property
    def __cause__(self):
        raise UnshowableError


class UnshowableError(Exception):
    def __repr__(self) -> str:
        raise ValueError

    __str__ = __repr__


class Outer:
    class InnerError(Exception):
        pass


def raised(error: BaseException) -> BaseException:
    """Give an error a traceback."""
    try:
        throw(error)
    except BaseException as caught:
        return caught
    raise AssertionError


def throw(error: BaseException):
    raise error


def travelled(error: BaseException) -> Exception:
    """Send an error the whole way."""
    return failures.rebuild(failures.unpack(failures.pack(failures.take_apart(raised(error)))))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("k"),
        ShownError(7, "detail"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        FileNotFoundError(2, "No such file", "name"),
        UnknownLookupError("n", ("a", "b")),
        RemoteError("a.B", "text"),
        Outer.InnerError("nested"),
        FrozenError(3),
        MarkupError(),
        StopIteration(5),
        ExceptionGroup("both", [ValueError(1), ShownError(2, "x")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_pickles_comes_back_as_its_type(error):
    rebuilt = travelled(error)
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert isinstance(rebuilt.__cause__, RemoteTraceback)
    assert "in raised" in str(rebuilt.__cause__)
    assert type(error).__name__ in rebuilt.__cause__.text


def test_notes_and_attributes_come_along():
    error = ShownError(7, "detail")
    error.add_note("look here")
    rebuilt = travelled(error)
    assert rebuilt.code == 7
    assert rebuilt.__notes__ == ["look here"]
    assert "look here" in rebuilt.__cause__.text


def test_the_rebuilt_exception_shows_the_remote_traceback():
    text = "".join(traceback.format_exception(travelled(ValueError("no"))))
    assert "RemoteTraceback" in text
    assert "in raised" in text
    assert "direct cause" in text


def test_causes_over_there_are_told():
    error = ValueError("second")
    error.__cause__ = raised(KeyError("first"))
    rebuilt = travelled(error)
    assert "KeyError: 'first'" in rebuilt.__cause__.text


@pytest.mark.parametrize(
    ("error", "message", "lost"),
    [
        (UnpicklableError(), "holds a function", "(error.function, a function)"),
        (RefusesToPickleError("never"), "never", "pickling it raised SystemExit: 3 (error, a"),
        (OddToPickleError("odd"), "odd", ".OddError: at the start"),
        (
            TwoArgumentsError("host", 80),
            "host:80 is closed",
            "required positional argument: 'port'",
        ),
        (RebuiltBy(leave), "rebuilt otherwise", "rebuilding it raised SystemExit: 1"),
        (RebuiltBy(fail), "rebuilt otherwise", "rebuilding it raised OSError: not over here"),
        (RebuiltBy(be_odd), "rebuilt otherwise", ".OddError: on the way"),
        (RebuiltBy(give_a_text), "rebuilt otherwise", "rebuilding it gave a str"),
        (RebuiltBy(KeyboardInterrupt), "rebuilt otherwise", ""),
    ],
    ids=lambda value: getattr(value, "function", value).__class__.__name__,
)
def test_an_exception_that_cannot_be_rebuilt_is_replaced_and_says_why(error, message, lost):
    rebuilt = travelled(error)
    assert lost in rebuilt.lost
    assert getattr(rebuilt, "__notes__", []) == ([rebuilt.lost] if lost else [])
    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name == f"{__name__}.{type(error).__name__}"
    assert rebuilt.message == message
    assert isinstance(rebuilt.__cause__, RemoteTraceback)


def test_an_interrupt_while_an_exception_is_rebuilt_is_the_users():
    with pytest.raises(KeyboardInterrupt):
        travelled(RebuiltBy(interrupt))


def test_what_was_pickled_in_vain_is_told_even_if_the_part_cannot_be_found():
    class FickleError(Exception):
        is_first = True

        def __reduce__(self):
            if FickleError.is_first:
                FickleError.is_first = False
                raise ValueError("only once")
            return ValueError, ()

    rebuilt = travelled(FickleError("fickle"))
    assert "raised ValueError: only once. Leave" in rebuilt.lost


def test_an_exception_of_a_local_class_is_replaced():
    class LocalError(Exception):
        pass

    rebuilt = travelled(LocalError("here only"))
    assert type(rebuilt) is RemoteError
    assert rebuilt.type_name.endswith("<locals>.LocalError")
    assert rebuilt.message == "here only"


@pytest.mark.parametrize("inner", [ValueError(), SystemExit(2)], ids=repr)
def test_an_exception_that_cannot_be_shown_is_still_told(inner):
    failure = failures.take_apart(raised(SilentError(inner)))
    assert failure.type_name == f"{__name__}.SilentError"
    assert failure.message == "(its message cannot be shown)"
    assert "in raised" in failure.traceback
    assert type(travelled(SilentError(inner))) is SilentError
    gone = failures.rebuild(failure._replace(pickled=None))
    assert str(gone) == f"{__name__}.SilentError: (its message cannot be shown)"


def test_a_traceback_that_cannot_be_formatted_is_told():
    failure = failures.take_apart(OwnCauseError("own"))
    assert failure.message == "own"
    assert failure.traceback == (
        f"{__name__}.OwnCauseError (its traceback cannot be formatted: {__name__}.UnshowableError)"
    )


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (SystemExit(3), "SystemExit", "3"),
        (SystemExit(), "SystemExit", ""),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (GeneratorExit(), "GeneratorExit", ""),
        (CancelledError("c"), "asyncio.exceptions.CancelledError", "c"),
        (BaseExceptionGroup("g", [SystemExit(1)]), "BaseExceptionGroup", "g (1 sub-exception)"),
    ],
    ids=repr,
)
def test_what_would_end_a_program_is_replaced(error, name, message):
    rebuilt = travelled(error)
    assert type(rebuilt) is RemoteError
    assert (rebuilt.type_name, rebuilt.message) == (name, message)
    assert str(rebuilt) == (f"{name}: {message}" if message else name)


@given(st.builds(Failure, texts, texts, texts, texts, st.none() | st.binary(), texts))
def test_any_failure_comes_back_as_it_was(failure):
    packed = failures.pack(failure)
    assert failures.unpack(packed) == failure
    assert failures.unpack(bytearray(packed)) == failure


@given(texts)
def test_any_message_arrives(text):
    assert travelled(ValueError(text)).args == (text,)
    failure = failures.take_apart(ValueError(text))
    assert failure.message == text


# The place


def define_in(module, source: str):
    """Define `call` as if in a module of that name."""
    names = {"__name__": module}
    exec(compile(source, f"{module}.py", "exec"), names)
    return names["call"]


def place_of(function, *args) -> str:
    try:
        function(*args)
    except Exception as error:
        return failures.take_apart(error).place
    raise AssertionError


CALLER = "def call(inner):\n    inner()"
RAISER = "class Api:\n    def ask(self):\n        raise KeyError(1)\ncall = Api().ask"


def test_the_place_is_the_innermost_frame():
    raiser = define_in("user", RAISER)
    assert place_of(define_in("outer", CALLER), raiser) == "user.py:3 in Api.ask"


@pytest.mark.parametrize("package", ["okanjo_conductor", "okanjo_conductor._runtime"])
def test_frames_of_this_package_are_no_place(package):
    caller, raiser = define_in("user", CALLER), define_in(package, RAISER)
    assert place_of(caller, raiser) == "user.py:2 in call"


def test_a_package_of_a_similar_name_is_a_place():
    assert place_of(define_in("okanjo_conductor_jobs", RAISER)).startswith("okanjo_conductor_jobs")


def test_code_without_a_module_is_a_place():
    assert place_of(define_in(None, RAISER)) == "None.py:3 in Api.ask"
    assert place_of(lambda: eval("1 / 0", {})) == "<string>:1 in <module>"
    assert place_of(lambda: eval("1 / 0", {"__name__": 5})) == "<string>:1 in <module>"


def test_an_exception_never_raised_has_no_place():
    assert failures.take_apart(ValueError()).place == ""


def test_what_a_library_has_registered_for_exceptions_is_not_asked(monkeypatch):
    """`tblib` does so, and Dask loads it."""
    monkeypatch.setitem(copyreg.dispatch_table, FrozenError, lambda _: (ValueError, ("dulled",)))

    error = travelled(FrozenError(3))
    assert (type(error), error.code) == (FrozenError, 3)
