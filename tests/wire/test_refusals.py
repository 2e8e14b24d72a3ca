"""What is said when something does not travel."""

from __future__ import annotations

import copy
import pickle
import threading

from okanjo_conductor._wire import refusals
from okanjo_conductor._wire.byvalue import encode_by_value
from okanjo_conductor._wire.codec import encode
from okanjo_conductor.errors import SerialisationError


class Fails:
    def __reduce__(self):
        return int, ("not a number",)


class UnshowableKey:
    def __repr__(self):
        raise SystemExit(1)


class SilentError(Exception):
    def __str__(self):
        raise SystemExit(1)


def error_of(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError


def test_what_cannot_be_pickled():
    value = {"model": [threading.Lock()]}
    error = error_of(pickle.dumps, value)

    refusal = refusals.unpicklable("k", "payload", value, error)

    assert str(refusal) == (
        "job 'k': its payload, a dict, cannot be pickled and so cannot be sent to a worker: "
        "TypeError: cannot pickle '_thread.lock' object. What broke is payload['model'][0], "
        "a _thread.lock. Send what it can be made of again, or leave that part out with "
        "__getstate__ in its class"
    )
    assert (refusal.path, refusal.part_type) == ("payload['model'][0]", "_thread.lock")
    assert refusal.__cause__ is error


def test_what_cannot_be_unpickled():
    encoded = encode([1, Fails()])
    error = error_of(pickle.loads, encoded.blob)

    refusal = refusals.unloadable(7, "value", encoded, error)

    assert str(refusal) == (
        "job 7: its value cannot be unpickled in the conductor: ValueError: invalid literal for "
        "int() with base 10: 'not a number'. What broke is value[1], rebuilt by int. Pickling it "
        "went well: its class or function must be importable there too, and rebuild it from what "
        "its __reduce__ or __getstate__ gives"
    )
    assert (refusal.path, refusal.part_type) == ("value[1]", "int")
    assert refusal.__cause__ is error


def test_a_payload_that_travelled_as_bytes():
    encoded = encode(Fails())
    refusal = refusals.unloadable(7, "payload", bytes(encoded.blob), ValueError())
    assert "job 7: its payload cannot be unpickled in the worker: ValueError. What" in str(refusal)
    assert refusal.path == "payload"


def test_a_part_whose_place_is_not_known():
    held = Fails()
    encoded = encode_by_value([lambda: held])
    refusal = refusals.unloadable(7, "value", encoded, ValueError())
    assert "What broke is a part of it, rebuilt by int." in str(refusal)
    assert (refusal.path, refusal.part_type) == ("", "int")


def test_what_is_too_deep():
    value = []
    for _ in range(100_000):
        value = [value]
    refusal = refusals.unpicklable(1, "value", value, error_of(pickle.dumps, value))
    assert "cannot be sent to the conductor: RecursionError" in str(refusal)
    assert "nested too deeply" in str(refusal)
    assert refusal.path.startswith("value[0][0]")


def test_what_is_too_large():
    refusal = refusals.unpicklable(1, "payload", [], SerialisationError("it takes 9 GiB"))
    assert str(refusal) == "job 1: its payload, a list, cannot be sent to a worker: it takes 9 GiB"
    assert refusal.path == ""


def test_where_no_part_was_found():
    error = ValueError("only then")
    for refusal in (
        refusals.unpicklable(1, "key", [1], error),
        refusals.unloadable(1, "key", encode([1]), error),
    ):
        assert "ValueError: only then. Which part of it broke could not be" in str(refusal)
        assert (refusal.path, refusal.part_type) == ("", "")


def test_what_runs_out_of_memory_is_not_tried_again():
    value, encoded = [threading.Lock()], encode(Fails())
    for refusal in (
        refusals.unpicklable(1, "value", value, MemoryError("no room")),
        refusals.unloadable(1, "value", encoded, MemoryError("no room")),
    ):
        assert refusal.path == ""
        assert str(refusal).endswith(
            "MemoryError: no room. Send it in parts, or write it to a file and send the path"
        )


def test_keys_and_errors_that_cannot_be_shown():
    refusal = refusals.unpicklable(UnshowableKey(), "payload", threading.Lock(), SilentError())
    assert f"job <{__name__}.UnshowableKey>: its payload" in str(refusal)
    assert "SilentError: (its message cannot be shown)" in str(refusal)


def test_the_attributes_travel():
    error = SerialisationError("message", "value.lock", "_thread.lock")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(other) == "message"
        assert (other.path, other.part_type) == ("value.lock", "_thread.lock")
