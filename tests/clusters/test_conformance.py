"""One suite over every cluster, on the small loop of ours and on asyncio's."""

from __future__ import annotations

import pytest

from okanjo_conductor.testing import check_cluster, cluster_checks


@pytest.mark.parametrize("check", cluster_checks())
@pytest.mark.parametrize("cluster", ["processes", "threads", "inline"])
def test_a_cluster_does_what_runs_rely_on(cluster, check):
    check_cluster(lambda: cluster, only=[check])


@pytest.mark.asyncio_loop
@pytest.mark.parametrize("check", cluster_checks())
@pytest.mark.parametrize("cluster", ["threads", "inline"])
def test_it_does_so_on_the_loop_of_asyncio(cluster, check):
    check_cluster(lambda: cluster, only=[check])
