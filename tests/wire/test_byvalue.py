"""What lives in ``__main__``: noticed, sent by value, found again."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

from okanjo_conductor._wire.byvalue import (
    define,
    encode_by_value,
    encode_worker,
    is_importable,
    mentions_main,
    names_in_main,
    share_main,
)
from okanjo_conductor._wire.codec import decode, encode

MAIN = """
import enum, functools
from dataclasses import dataclass

@dataclass
class Point:
    x: int = 1

    def norm(self):
        return abs(self.x)

    @classmethod
    def zero(cls):
        return cls(0)

    @dataclass
    class Label:
        text: str = "a"

        class Font:
            pass

class Shape:
    def __init__(self, *points):
        self.points = points

class Hue(enum.Enum):
    RED = 1

class Meta(type):
    pass

class Made(metaclass=Meta):
    pass

class Broken(Exception):
    pass

class Listed(list):
    pass

class Reduced:
    def __reduce__(self):
        return rebuild, (1,)

def rebuild(number):
    return Reduced()

def double(number):
    return 2 * number
"""


@pytest.fixture
def main(monkeypatch):
    """Put a script in the place of ``__main__``."""
    return fake_main(monkeypatch, MAIN)


def fake_main(monkeypatch, source: str) -> types.ModuleType:
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(source, module.__dict__)
    return module


class Importable:
    class Nested:
        pass

    def method(self):
        pass

    @classmethod
    def built(cls):
        pass


def importable():
    pass


def shadowed():
    pass


SHADOWED = shadowed


def shadowed():
    pass


# What another process could import


@pytest.mark.parametrize(
    "obj", [Importable, Importable.Nested, Importable.method, importable, OrderedDict, len, int]
)
def test_what_a_module_holds_by_its_name_is_importable(obj):
    assert is_importable(obj)


def test_what_lives_in_main_is_not_importable(main):
    assert not is_importable(main.Point)
    assert not is_importable(main.double)


def local_class():
    class Local:
        pass

    return Local


@pytest.mark.parametrize(
    "obj",
    [local_class(), lambda: None, SHADOWED, Importable.built, functools.partial(importable)],
    ids=["local", "lambda", "shadowed", "bound", "partial"],
)
def test_what_no_name_leads_to_is_not_importable(obj):
    assert not is_importable(obj)


@pytest.mark.parametrize(
    "module", ["no_such_module", "no_such_package.module", "okanjo_conductor.none", ".", None]
)
def test_what_claims_a_module_that_cannot_be_found_is_not_importable(module):
    def function():
        pass

    function.__module__, function.__qualname__ = module, "function"
    assert not is_importable(function)


def test_a_module_made_by_hand_is_not_importable(monkeypatch):
    module = types.ModuleType("made_by_hand")
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    exec("def function(): pass", module.__dict__)
    assert not is_importable(module.function)


# What a pickle needs of main


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("Point()", {"Point"}),
        ("Point", {"Point"}),
        ("double", {"double"}),
        ("[Point(), Point(2), double]", {"Point", "double"}),
        ("{'k': ({'deep': [Point()]},)}", {"Point"}),
        ("Shape(Point(), Hue.RED)", {"Shape", "Point", "Hue"}),
        ("Point.Label()", {"Point"}),
        ("Point.Label.Font()", {"Point"}),
        ("Point.norm", {"Point"}),
        ("Point().norm", {"Point"}),
        ("Point.zero", {"Point"}),
        ("Hue.RED", {"Hue"}),
        ("Made()", {"Made"}),
        ("Made", {"Made"}),
        ("Broken('no')", {"Broken"}),
        ("Listed([1, Point()])", {"Listed", "Point"}),
        ("Reduced()", {"rebuild"}),
        ("functools.partial(double, Point())", {"double", "Point"}),
        ("list[Point]", {"Point"}),
        ("{Hue.RED: 1}", {"Hue"}),
        ("frozenset([Point])", {"Point"}),
    ],
)
def test_everything_a_pickle_needs_of_main_is_named(main, expression, names):
    value = eval(expression, main.__dict__)
    assert names_in_main(value) == names
    assert mentions_main(encode(value).blob)
    assert mentions_main(bytearray(encode(value).blob))


@pytest.mark.parametrize(
    "value",
    [1, None, "text", [1, {"a": (2.0, b"c")}], Importable(), importable, OrderedDict(a=1), int],
    ids=repr,
)
def test_what_needs_nothing_of_main_names_nothing(value):
    assert names_in_main(value) == set()
    assert not mentions_main(encode(value).blob)


def test_large_arrays_are_no_obstacle_to_naming(main):
    value = [np.zeros(100_000), main.Point()]
    assert names_in_main(value) == {"Point"}


def test_the_word_alone_makes_a_pickle_suspicious_but_names_nothing():
    assert mentions_main(encode(["__main__"]).blob)
    assert names_in_main(["__main__"]) == set()


def test_naming_raises_what_pickling_raises(main):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        names_in_main(lambda: None)


# Definitions


def test_a_definition_needs_no_main_to_be_read(main, monkeypatch):
    blob = define("double")
    fake_main(monkeypatch, "")
    assert pickle.loads(blob)(4) == 8


def test_a_name_that_main_does_not_have_cannot_be_defined(main):
    with pytest.raises(AttributeError):
        define("nothing")


SENDER = """
import json, sys
from okanjo_conductor._wire.byvalue import define, mentions_main, names_in_main
from okanjo_conductor._wire.codec import encode

class Base:
    factor = 3

class Point(Base):
    class Label:
        pass
    def __init__(self, x):
        self.x, self.label = x, Point.Label()
    def scaled(self):
        return scale(self.x, self.factor)

def scale(number, factor):
    return number * factor

payload = [Point(5), scale]
blob = encode(payload).blob
print(json.dumps({
    "mentions": mentions_main(blob),
    "blob": blob.hex(),
    "definitions": {name: define(name).hex() for name in names_in_main(payload)},
}))
"""

RECEIVER = """
import json, pickle, sys
sent = json.load(sys.stdin)
for name, blob in sent["definitions"].items():
    globals()[name] = pickle.loads(bytes.fromhex(blob))
point, function = pickle.loads(bytes.fromhex(sent["blob"]))
assert type(point) is Point
assert type(point.label) is Point.Label
assert function is scale
print(point.scaled())
point.label = None
print(b"__main__" in pickle.dumps(point))  # by reference
"""


def run(script: str, given: str = "") -> str:
    """Run a script as the ``__main__`` of a process of its own."""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_real_script_sends_its_classes_to_another_process():
    sent = run(SENDER)
    assert json.loads(sent)["mentions"]
    assert set(json.loads(sent)["definitions"]) == {"Point", "scale"}
    assert run(RECEIVER, sent).split() == ["15", "True"]


# Values that pickle cannot do


@pytest.mark.parametrize("value", [[1, "a"], Importable, importable], ids=repr)
def test_what_pickle_can_do_is_left_to_pickle(value):
    assert encode_by_value(value) == encode(value)


def test_large_arrays_still_travel_beside_the_pickle():
    assert len(encode_by_value(np.zeros(100_000)).buffers) == 1


def test_what_pickle_cannot_refer_to_travels_by_value():
    factor = 3
    function = decode(encode_by_value(lambda number: number * factor))
    assert function(5) == 15
    local = local_class()
    assert type(decode(encode_by_value(local()))).__name__ == "Local"


def test_what_nobody_can_pickle_raises():
    with pytest.raises(TypeError):
        encode_by_value(number for number in range(3))


# What comes with a worker

WORKERS = """
import functools

class Point: pass
class Other: pass
def helper(): return Point()

def function(job): return helper()

class Plain:
    def process_job(self, job): return helper()

class Child(Plain): pass

class Static:
    @staticmethod
    def process_job(job): return helper()

class ByClass:
    @classmethod
    def process_job(cls, job): return helper()

class Bare: pass

def outer():
    class Inside:
        def process_job(self, job): return helper()
    return Inside

Inside = outer()
bound = Plain().process_job
anonymous = lambda job: helper()
"""


@pytest.mark.parametrize(
    ("worker", "shared"),
    [
        ("function", {"function", "helper", "Point"}),
        ("anonymous", {"<lambda>", "helper", "Point"}),
        ("Plain", {"Plain", "helper", "Point"}),
        ("Child", {"Child", "Plain", "helper", "Point"}),
        ("Static", {"Static", "helper", "Point"}),
        ("ByClass", {"ByClass", "helper", "Point"}),
        ("Inside", {"Inside", "helper", "Point"}),
        ("bound", {"Plain", "helper", "Point"}),
        ("Plain()", {"Plain", "helper", "Point"}),
        ("Bare", {"Bare"}),
    ],
)
def test_what_came_with_a_worker_is_shared(worker, shared):
    sender = f"import cloudpickle, json\n{WORKERS}\nprint(cloudpickle.dumps({worker}).hex())"
    receiver = (
        "import pickle, sys\n"
        "from okanjo_conductor._wire.byvalue import share_main as _share\n"
        "_before = set(globals())\n"
        "_share(pickle.loads(bytes.fromhex(sys.stdin.read())))\n"
        "print(*sorted(set(globals()) - _before - {'_before'}))\n"
        "if 'helper' in globals():\n"
        "    assert type(helper()) is Point\n"
        "    pickle.loads(pickle.dumps(helper()))\n"
    )
    assert set(run(receiver, run(sender)).split()) == shared


@pytest.mark.parametrize("worker", ["function", "Child", "Static", "bound"])
def test_sharing_finds_what_the_worker_uses(monkeypatch, worker):
    script = fake_main(monkeypatch, WORKERS)
    here = fake_main(monkeypatch, "")
    share_main(getattr(script, worker))
    assert here.Point is script.Point
    assert here.helper is script.helper
    assert not hasattr(here, "functools")


def test_sharing_replaces_nothing(monkeypatch):
    script = fake_main(monkeypatch, WORKERS)
    here = fake_main(monkeypatch, "Point = 'mine'")
    share_main(script.Plain)
    assert here.Point == "mine"
    assert here.Plain is script.Plain


def test_a_worker_of_a_module_leaves_main_alone(monkeypatch):
    here = fake_main(monkeypatch, "")
    before = set(vars(here))
    share_main(Importable)
    share_main(importable)
    assert set(vars(here)) == before


def test_a_worker_of_a_module_that_cannot_be_imported_elsewhere_takes_it_along() -> None:
    code = "def helper(job):\n    return job + 1\ndef work(job):\n    return helper(job)\n"
    stray = types.ModuleType("stray_module")
    exec(code, stray.__dict__)
    sys.modules["stray_module"] = stray
    try:
        assert not is_importable(stray.work)
        blob = encode_worker(stray.work)
    finally:
        del sys.modules["stray_module"]
    assert pickle.loads(blob)(1) == 2


def test_a_module_with_a_broken_spec_counts_as_not_importable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = types.ModuleType("broken_module")  # its __spec__ is None, which find_spec refuses
    monkeypatch.setitem(sys.modules, "broken_module", broken)
    exec("def work(job):\n    return job\n", broken.__dict__)
    assert not is_importable(broken.work)


def test_a_worker_that_has_a_findable_module_is_pickled_as_it_is() -> None:
    assert pickle.loads(encode_worker(lambda job: job + 1))(1) == 2
