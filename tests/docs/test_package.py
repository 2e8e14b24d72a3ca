"""The package as it presents itself: its names, its weight, its promises in print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import okanjo_conductor
from okanjo_conductor import clusters

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "LATER",
    "JournalEntry",
    "JournalReader",
    "RunInfo",
    "open_journal",
    "Attempt",
    "Cause",
    "Conductor",
    "AsyncConductorWorker",
    "ConductorWorker",
    "FailureGroup",
    "JobInfo",
    "JobProgress",
    "JobState",
    "LocalCluster",
    "LookupTable",
    "Message",
    "Outcome",
    "RecentFailure",
    "Recycle",
    "Report",
    "Retry",
    "Snapshot",
    "StatsAggregate",
    "StatsReport",
    "TimeSplit",
    "WorkerExit",
    "WorkerSnapshot",
    "WorkerStats",
    "WorkerStuck",
    "__version__",
    "conduct",
    "errors",
    "command",
    "current_job",
    "current_worker",
    "ABSENT",
    "Loading",
    "Lookup",
    "LookupStats",
    "exponential",
    "is_worker",
}


def loaded_by(code: str) -> set[str]:
    """Name the modules that a fresh interpreter loads for this code, beyond its own."""
    script = (
        "import sys; before = set(sys.modules); "
        f"{code}; "
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_public_names_are_these():
    assert set(okanjo_conductor.__all__) == PUBLIC
    assert set(dir(okanjo_conductor)) == PUBLIC
    for name in PUBLIC:
        assert getattr(okanjo_conductor, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(okanjo_conductor, "Manager")


def test_importing_the_names_loads_nothing_third_party_but_pyee():
    modules = loaded_by("from okanjo_conductor import Conductor, ConductorWorker, conduct, Retry")
    third_party = {
        name.split(".")[0] for name in modules if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert third_party - {"__future__"} == {"okanjo_conductor", "pyee", "typing_extensions"} & (
        third_party
    )
    assert "pyee" in third_party


def test_importing_the_names_loads_no_asyncio():
    modules = loaded_by("from okanjo_conductor import Conductor, ConductorWorker, conduct")
    assert not {"asyncio", "cloudpickle", "multiprocessing"} & modules


def test_naming_the_clusters_of_engines_loads_no_engine():
    modules = loaded_by("from okanjo_conductor.clusters import DaskCluster, RayCluster")
    assert not {"ray", "distributed", "dask"} & modules


@pytest.mark.parametrize(("name", "extra"), [("RayCluster", "ray"), ("DaskCluster", "dask")])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, {"ray": "ray", "dask": "distributed"}[extra], None)
    message = re.escape(f"pip install 'okanjo-conductor[{extra}]'")
    with pytest.raises(okanjo_conductor.errors.ConfigurationError, match=message):
        getattr(clusters, name)("somewhere")


def test_the_names_of_clusters_are_these():
    assert set(dir(clusters)) == set(clusters.__all__)
    for name in clusters.__all__:
        assert getattr(clusters, name).__name__ == name
    assert not hasattr(clusters, "SlurmCluster")


def test_the_package_does_not_load_its_test_kit_and_that_needs_no_pytest():
    assert "okanjo_conductor.testing" not in loaded_by("from okanjo_conductor import Conductor")
    assert not {"pytest", "hypothesis"} & loaded_by("import okanjo_conductor.testing")


def test_importing_the_names_loads_nothing_that_takes_long():
    modules = loaded_by("from okanjo_conductor import Conductor, Retry, conduct")
    assert not {"logging", "dataclasses", "inspect", "subprocess", "pathlib"} & modules


HEAVY = "asyncio", "cloudpickle", "dataclasses", "logging", "subprocess", "uvloop"


def test_running_a_plain_script_loads_no_asyncio(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from okanjo_conductor import Conductor\n"
        f"HEAVY = {' '.join(HEAVY)!r}\n"
        "def job(_): return [name for name in HEAVY.split() if name in sys.modules]\n"
        "conductor = Conductor(job, jobs_queue=[0], worker_limit=1, logging=False)\n"
        "conductor.on('job_done', lambda outcome: print(outcome.value))\n"
        "conductor.run()\n"
        "print(job(0))\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env=env
    )
    assert done.stdout == "[]\n[]\n"


def test_a_worker_process_loads_no_asyncio():
    script = (
        "import sys\n"
        "from okanjo_conductor import conduct\n"
        "print(list(conduct(lambda _: 'asyncio' in sys.modules, [0], worker_limit=1)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[False]\n"


def test_every_error_stands_in_the_tree_of_the_errors_module():
    tree = okanjo_conductor.errors.__doc__ or ""
    missing = {
        name
        for name in okanjo_conductor.errors.__all__
        if name not in tree and name != "RemoteTraceback"
    }
    assert not missing


def test_architecture_names_every_module():
    page = (ROOT / "ARCHITECTURE.md").read_text()
    package = ROOT / "src" / "okanjo_conductor"
    modules = {path.stem for path in package.glob("_[a-z]*.py")}
    assert not {name for name in modules if name not in page}
