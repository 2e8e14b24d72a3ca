"""Simple functions of ``__main__``: they arrive as they were, and the others are left alone."""

from __future__ import annotations

import builtins
import sys
from functools import partial
from types import FunctionType, ModuleType

import pytest

from okanjo_conductor._wire import functions
from okanjo_conductor._wire.byvalue import is_importable


@pytest.fixture
def main(monkeypatch):
    """Run code as ``__main__``; return what a name in it is bound to."""

    def run(code, name="f"):
        module = ModuleType("__main__")
        module.__file__ = "/somewhere/script.py"
        monkeypatch.setitem(sys.modules, "__main__", module)
        exec(code, vars(module))
        return vars(module)[name]

    return run


def travelled(function):
    packed = functions.pack(function, is_importable)
    assert packed is not None
    return functions.unpack(packed)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("def f(x): return x * x", 9),
        ("f = lambda x: x + 1", 4),
        ("def f(x, y=2, *, z=3): return x, y, z", (3, 2, 3)),
        ("import math\ndef f(x): return math.floor(x + 0.5)", 3),
        ("import os.path\ndef f(x): return os.path.basename(f'a/{x}')", "3"),
        ("import xml.dom\ndef f(x): return xml.dom.Node.TEXT_NODE", 3),
        ("from math import sqrt\nLIMIT = 10\ndef f(x): return min(LIMIT, sqrt(x * 3))", 3),
        (
            "from collections import OrderedDict\ndef f(x): return list(OrderedDict.fromkeys([x]))",
            [3],
        ),
        ("from os.path import join\ndef f(x): return join('a', str(x))", "a/3"),
        ("def g(x): return x - 1\ndef f(x): return g(x) + sum(g(i) for i in range(x))", 2),
        ("def f(x): return 1 if x < 2 else x * f(x - 1)", 6),
        ("def f(x): return g(x)\ndef g(x): return f(x - 1) if x else 'end'\n", "end"),
        ("g = lambda x: x\nh = g\ndef f(x): return g is h", True),
        ("def f(x): return __name__, __file__", ("__main__", "/somewhere/script.py")),
        ("def f(x):\n import json\n return json.dumps([x])", "[3]"),
        ("def f(x):\n def inner(): return x\n return inner()", 3),
    ],
)
def test_a_simple_function_arrives_as_it_was(main, code, value):
    function = main(code)
    there = travelled(function)
    assert there(3) == function(3) == value
    assert there.__qualname__ == function.__qualname__
    assert there.__module__ == "__main__"
    assert there.__globals__ is not function.__globals__


def test_the_doc_string_travels(main):
    assert travelled(main("def f(x):\n 'what it does'")).__doc__ == "what it does"


def test_a_global_that_is_set_is_no_matter(main):
    function = main("def f(x):\n global count\n count = x\n return count")
    assert travelled(function)(3) == 3
    assert "count" not in function.__globals__


@pytest.mark.parametrize(
    "code",
    [
        "f = 3",
        "f = len",
        "class f: pass",
        "def f(x: int): pass",
        "def f(x, y=[]): pass",
        "def f(x, *, y=[]): pass",
        "def f(x): pass\nf.mark = 1",
        "def make(y):\n def f(x): return y\n return f\nf = make(1)",
        "table = {}\ndef f(x): return table",
        "class C: pass\ndef f(x): return C()",
        "def g(x: int): pass\ndef f(x): return g(x)",
        "from types import ModuleType\nm = ModuleType('m')\ndef f(x): return m",
        "import sys\nm = sys.modules['__main__']\ndef f(x): return m",
        "from math import sqrt\ng = lambda: 1\ng.__module__ = 'strange'\ndef f(x): return g()",
        "g = type(lambda: 1)((lambda: 1).__code__, {'__name__': '__main__'})\ndef f(x): return g()",
    ],
)
def test_others_are_left_to_cloudpickle(main, code):
    assert functions.pack(main(code), is_importable) is None


def test_a_function_without_a_file_travels(main):
    function = main("def f(x): return __name__")
    del function.__globals__["__file__"]
    there = travelled(function)
    assert isinstance(there, FunctionType)
    assert "__file__" not in there.__globals__
    assert there.__globals__["__builtins__"] is builtins


class _Called:
    def __call__(self, x):
        return x


class _Awaited(_Called):
    async def __call__(self, x):
        return x


async def _awaited(x):
    return x


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (_awaited, True),
        (partial(partial(_awaited), 1), True),
        (_Awaited(), True),
        (_Awaited().__call__, True),
        (lambda x: x, False),
        (_Called(), False),
        (_Awaited, False),
        (len, False),
        (None, False),
    ],
)
def test_a_function_is_async_if_calling_it_gives_a_coroutine(function, is_async):
    assert functions.is_async(function) == is_async
