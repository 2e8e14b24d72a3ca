"""The suite itself: a cluster that breaks a promise fails the check of that promise, by name."""

from __future__ import annotations

from functools import partial

import pytest

from okanjo_conductor._io import conductor_link
from okanjo_conductor._wire import messages as msg
from okanjo_conductor.clusters import Launch, LocalCluster, threads
from okanjo_conductor.errors import ConfigurationError
from okanjo_conductor.testing import ClusterCheckError, check_cluster, cluster_checks


class Ear:
    """The run, as it hears of workers through somebody who forgets or changes what they say."""

    def __init__(self, watcher, **habits):
        self._watcher = watcher
        self._habits = habits

    def __getattr__(self, name):
        return getattr(self._watcher, name)

    def on_message(self, worker_id, message):
        if not isinstance(message, self._habits.get("forgets", ())):
            self._watcher.on_message(worker_id, message)

    def on_outcomes(self, worker_id, ordinals, nanoseconds, results):
        change = self._habits.get("changes")
        results = [change(result) for result in results] if change else results
        self._watcher.on_outcomes(worker_id, ordinals, nanoseconds, results)

    def on_worker_exited(self, worker_id, code, signal, detail):
        code = self._habits.get("code", code)
        self._watcher.on_worker_exited(worker_id, code, signal, detail)


class Sloppy(threads.ThreadCluster):
    """Threads, with somebody in between."""

    def __init__(self, crew=threads.ThreadCrew, **habits):
        self._crew = crew
        self._habits = habits

    def launch(self, program):
        def open_crew(loop, watcher, arrays):
            return self._crew(program, loop, Ear(watcher, **self._habits), arrays)

        return Launch(open_crew)


class Silent(LocalCluster):
    """Processes whose log records go nowhere."""

    def launch(self, program):
        def open_crew(loop, watcher, arrays):
            return launch.open(loop, Ear(watcher, forgets=msg.Log), arrays)

        launch = super().launch(program)
        return Launch(open_crew)


class Blind(threads.ThreadCrew):
    """Tells nobody where its threads are."""

    def dump_stack(self, worker_id):
        return False


def half(result):
    return result // 2 if type(result) is int else result


@pytest.mark.parametrize(
    ("check", "cluster"),
    [
        ("hand_out", partial(Sloppy, changes=half)),
        ("ordered_outcomes", partial(Sloppy, changes=half)),
        ("async_start", partial(Sloppy, changes=half)),
        ("recycling", partial(Sloppy, changes=half)),
        ("notes", partial(Sloppy, forgets=msg.Ask)),
        ("progress_and_abort", partial(Sloppy, forgets=msg.Progress)),
        ("progress_and_abort", partial(Sloppy, forgets=msg.AbortRun)),
        ("stats", partial(Sloppy, forgets=msg.Stats)),
        ("logs_and_prints", Silent),
        ("adding_jobs", partial(Sloppy, forgets=msg.AddJob)),
        ("messages_to_workers", partial(Sloppy, forgets=msg.Response)),
        ("failing_start", partial(Sloppy, forgets=msg.LastWords)),
        ("crash_and_blame", partial(Sloppy, forgets=msg.LastWords)),
        ("crash_and_blame", partial(Sloppy, code=1)),
        ("stuck", partial(Sloppy, crew=Blind)),
    ],
)
def test_a_check_fails_by_name(check, cluster):
    with pytest.raises(ClusterCheckError) as caught:
        check_cluster(cluster, only=[check])
    assert list(caught.value.failures) == [check]
    assert check in str(caught.value)


def test_blame_by_guess_is_found_out(monkeypatch):
    monkeypatch.setattr(conductor_link.ConductorLink, "last_started", lambda _: None)
    with pytest.raises(ClusterCheckError, match="crash_and_blame"):
        check_cluster(lambda: "threads", only=["crash_and_blame"])


def test_a_change_that_is_not_told_ahead_is_found_out(monkeypatch):
    monkeypatch.setattr("okanjo_conductor.lookups._client.Cached.forget", lambda *_: None)
    with pytest.raises(ClusterCheckError, match="cached_lookups"):
        check_cluster(lambda: "threads", only=["cached_lookups"])


def test_what_is_ignored_instead_of_refused_is_found_out(monkeypatch):
    monkeypatch.setattr("okanjo_conductor._conductor.refuse_what_it_lacks", lambda *_: None)
    with pytest.raises(ClusterCheckError, match=r"refusals.*not refused"):
        check_cluster(lambda: "threads", only=["refusals"])


def test_a_check_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ConfigurationError, match=r"no check 'handout'.*hand_out"):
        check_cluster(lambda: "inline", only=["handout"])
    assert "hand_out" in cluster_checks()
