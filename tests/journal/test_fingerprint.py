"""What counts as a change of the program, and what does not."""

from __future__ import annotations

import functools
import importlib
import operator
import sys

import pytest

from okanjo_conductor.journal._fingerprint import Fingerprint, reached

BASE = '''
"""A script."""
import os
from math import sqrt, floor
from okanjo_conductor import Conductor, ConductorWorker

RATE = 3
UNUSED = 4


def helper(x):
    """Say what it does."""
    return sqrt(x) * RATE


class Worker(ConductorWorker):
    def process_job(self, job):
        return helper(job)


def work(job):
    return helper(job)


def unrelated():
    return floor(UNUSED)


if __name__ == "__main__":
    conductor = Conductor(work, worker_limit=4)
    conductor.run()
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that makes a module of a text, anew each time."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = iter(f"program{n}" for n in range(100))

    def make(text):
        name = next(names)
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield make
    for name in [name for name in sys.modules if name.startswith("program")]:
        del sys.modules[name]


def changes(module, text, what="work"):
    """Return the differences that a change of the text makes."""
    before, after = module(BASE), module(text)
    one, other = (Fingerprint.of(getattr(m, what)) for m in (before, after))
    by_name = [Fingerprint.of(f"{m.__name__}:{what}") for m in (before, after)]
    assert bool(by_name[0].differences(by_name[1])) == bool(one.differences(other))
    return one.differences(other)


@pytest.mark.parametrize("what", ["work", "Worker"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 3", "RATE = 5"),
        ("return sqrt(x)", "return 2 * sqrt(x)"),
        ("return helper(job)", "return helper(job + 1)"),
        ("from math import sqrt, floor", "from cmath import sqrt\nfrom math import floor"),
    ],
)
def test_what_the_worker_reaches_counts(module, what, old, new):
    told = changes(module, BASE.replace(old, new), what)
    assert any(line.lstrip().startswith("+") and "+++" not in line for line in told.splitlines())


@pytest.mark.parametrize("what", ["work", "Worker"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("worker_limit=4", 'worker_limit=8, rerun="failed"'),
        ("UNUSED = 4", "UNUSED = 5"),
        ("return floor(UNUSED)", "return 0"),
        ("Say what it does", "Say something else"),
        ("RATE = 3", "RATE = 3  # per hour"),
        ("import os", "import os\nimport re"),
        ("import Conductor, ConductorWorker", "import Conductor, ConductorWorker, Retry"),
        ("x)\n\n\ndef", "x)\n\n\n\n\ndef"),
    ],
)
def test_what_it_does_not_reach_and_what_means_the_same_does_not(module, what, old, new):
    assert changes(module, BASE.replace(old, new), what) == ""


def test_classes_of_other_files_that_it_inherits_from_count(module, tmp_path):
    base = module(BASE)
    mine = module(f"from {base.__name__} import Worker\nclass Mine(Worker):\n    pass\n").Mine
    sources = Fingerprint.of(mine).sources
    assert set(sources) == {"worker", "class Worker"}
    assert "RATE = 3" in sources["class Worker"]
    assert not any("EventEmitter" in name for name in sources), "what is installed has a version"


def test_a_partial_counts_with_its_arguments():
    def work(rate, job):
        return rate * job

    one, same, other = (Fingerprint.of(functools.partial(work, rate)) for rate in (1, 1, 2))
    assert one.differences(same) == ""
    assert "functools.partial" in one.differences(other)
    assert "rate * job" in one.sources["worker"]


def test_lambdas_and_inner_functions_count():
    lambdas = [
        Fingerprint.of(lambda x: x + 1),
        Fingerprint.of(lambda x: x + 2),
    ]
    assert "+ 1" in lambdas[0].sources["worker"]
    assert lambdas[0].differences(lambdas[1])


def test_options_version_and_key_are_compared():
    def given(**options):
        return Fingerprint.of(len, **options)

    assert (
        given(worker_options={"a": {1, 2}}).differences(given(worker_options={"a": {2, 1}})) == ""
    )
    told = given(worker_options={"a": 1}).differences(given(worker_options={"a": 2, "b": "x"}))
    assert told == (
        "worker_options['a']: 1 became 2\nworker_options['b']: (not given) became \"x\""
    )
    assert given(version=1).differences(given(version="1")) == ""
    assert given().differences(given(version="2")) == "version: None became '2'"
    key = operator.itemgetter("id")
    assert given(job_key=key).differences(given(job_key=operator.itemgetter("id"))) == ""
    assert given().differences(given(job_key=key)) == "job_key: none was given, now one is"
    assert given(job_key=key).differences(given()) == "job_key: is not given now"
    assert "job_key" in given(job_key=key).differences(given(job_key=operator.itemgetter("name")))


def test_what_cannot_be_compared_is_not():
    def given(obj):
        return Fingerprint.of(len, {"a": obj})

    assert given(object()).differences(given(object())) == ""


def test_it_is_kept_as_text():
    one = Fingerprint.of(test_it_is_kept_as_text, {"a": 1}, len, "3")
    assert Fingerprint.from_text(one.text) == one


def test_only_so_many_lines_are_shown():
    one, other = (
        Fingerprint({"worker": "\n".join(f"x{n} = {n + by}" for n in range(200))}, {}, None)
        for by in (0, 1)
    )
    assert len(one.differences(other).splitlines()) < 70
    assert "more lines" in one.differences(other)


def test_what_does_not_parse_reaches_nothing():
    assert reached("def (", ["work"]) == ""
