"""Counting the CPUs that a process may use."""

from __future__ import annotations

import os

import pytest

from okanjo_conductor._io.cpus import usable_cpus

V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu.max": ""}, 8),
        ({V1[0]: "300000\n", V1[1]: "100000\n"}, 3),
        ({V1[0]: "-1\n", V1[1]: "100000\n"}, 8),
        ({V1[0]: "100000\n", V1[1]: "0\n"}, 8),
        ({V1[0]: "100000\n"}, 8),
    ],
)
def test_a_quota_of_the_cgroup_counts_where_it_is_smaller(files, cpus, eight_cpus, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert usable_cpus(str(tmp_path)) == cpus


@pytest.mark.parametrize(("count", "cpus"), [(6, 6), (None, 1)])
def test_without_an_affinity_mask_all_cpus_count(count, cpus, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)

    assert usable_cpus(str(tmp_path)) == cpus
