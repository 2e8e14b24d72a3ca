"""Files of jobs: there when the job is done, whole, and nothing else is left."""

from __future__ import annotations

import os

import pytest

from okanjo_conductor import Cause, Conductor, Retry
from okanjo_conductor._outputs import Outputs
from okanjo_conductor._types import JobInfo
from okanjo_conductor.errors import ConductorStateError
from system import makers

NAMES = ["text", "int", "bad", "killed-1", "killed-2", "never", "unpicklable", "more"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("worker", [makers.work, makers.Maker, makers.AsyncMaker])
def test_a_file_is_there_if_its_job_is_done(tmp_path, worker):
    folder = tmp_path / "deep" / "down"
    jobs = [(str(folder), name) for name in NAMES]
    conductor = Conductor(worker, jobs_queue=jobs, worker_limit=2, logging=False)
    outcomes = {outcome.job[1]: outcome for outcome in conductor.outcomes()}
    done = [name for name, outcome in outcomes.items() if outcome.is_done]
    assert sorted(done) == ["int", "killed-1", "killed-2", "more", "text"]
    assert names_in(folder) == [f"{name}.txt" for name in sorted(done)]
    assert (folder / "text.txt").read_text() == f"attempt {outcomes['text'].attempts}"
    missing = outcomes["never"].error
    assert isinstance(missing, FileNotFoundError)
    assert missing.filename == str(folder / "never.txt")
    assert outcomes["unpicklable"].cause is Cause.UNSERIALISABLE


def test_a_job_without_its_file_does_not_count_as_done(tmp_path):
    jobs = [(str(tmp_path), name) for name in ("text", "int", "never", "unpicklable", "bad")]
    report = Conductor(makers.work, jobs_queue=jobs, logging=False).run()
    assert (report.done, report.last_stats["jobs_done"]) == (2, 2)


def test_what_killed_attempts_have_left_goes_with_the_next_one(tmp_path):
    jobs = [(str(tmp_path), "always")]
    retry = Retry(crashes=3)
    Conductor(makers.work, jobs_queue=jobs, retry=retry, logging=False).run()
    (left,) = names_in(tmp_path)
    assert left.startswith(".always.")
    assert left.endswith(".part.txt")
    other = tmp_path / left.replace(".always.", ".always.0123456789ab")
    other.touch()
    Conductor(makers.work, jobs_queue=[(str(tmp_path), "always")], logging=False).run()
    assert len(names_in(tmp_path)) == 2
    assert other.exists(), "that of another job is not ours to remove"


@pytest.mark.parametrize("cluster", ["threads", "inline"])
def test_it_is_the_same_in_every_cluster(tmp_path, cluster):
    jobs = [(str(tmp_path), name) for name in ("a", "bad", "never", "int")]
    Conductor(makers.work, jobs_queue=jobs, cluster=cluster, logging=False).run()
    assert names_in(tmp_path) == ["a.txt", "int.txt"]


def test_only_the_job_at_hand_makes_files(tmp_path):
    name = str(tmp_path / "x")
    with pytest.raises(ConductorStateError, match="is not executed here"):
        JobInfo("a", 1).output(name)
    conductor = Conductor(makers.Keeper, jobs_queue=[name] * 2, worker_limit=1, logging=False)
    _, second = conductor.outcomes(ordered=True)
    assert isinstance(second.error, ConductorStateError)
    assert names_in(tmp_path) == []


# By itself


def test_several_files_appear_together_or_not_at_all(tmp_path):
    outputs = Outputs(5)
    made = [outputs.path(str(tmp_path / name)) for name in ("a.tar.gz", "b")]
    for path in made:
        with open(path, "w") as file:  # noqa: PTH123 - it is a str
            file.write("x")
    assert made[0].endswith(".part.gz")
    assert [os.path.basename(path)[0] for path in made] == [".", "."]  # noqa: PTH119 - as above
    outputs.keep()
    assert names_in(tmp_path) == ["a.tar.gz", "b"]
    outputs = Outputs(5)
    for name in ("c", "d"):
        path = outputs.path(str(tmp_path / name))
        if name == "c":
            open(path, "w").close()  # noqa: PTH123 - as above
    with pytest.raises(FileNotFoundError, match="without making the file"):
        outputs.keep()
    assert names_in(tmp_path) == ["a.tar.gz", "b"]


def test_a_folder_may_be_an_output(tmp_path):
    outputs = Outputs("a")
    os.mkdir(outputs.path(str(tmp_path / "whole")))  # noqa: PTH102 - it is a str
    outputs.keep()
    outputs = Outputs("a")
    os.mkdir(outputs.path(str(tmp_path / "dropped")))  # noqa: PTH102 - as above
    outputs.drop()
    assert names_in(tmp_path) == ["whole"]


def test_what_cannot_be_renamed_is_removed(tmp_path):
    outputs = Outputs("a")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "by").touch()
    open(outputs.path(str(tmp_path / "taken")), "w").close()  # noqa: PTH123 - as above
    with pytest.raises(OSError, match="taken"):
        outputs.keep()
    assert names_in(tmp_path) == ["taken"]
