"""Workers whose module imports numpy, which may start threads by that."""

from __future__ import annotations

import numpy as np

from okanjo_conductor import ConductorWorker


def twice(array):
    assert isinstance(array, np.ndarray)
    return 2 * array


class Twice(ConductorWorker):
    """Keeps its latest array, so that a buffer used again would show."""

    latest = None

    def process_job(self, job):
        if self.latest is not None:
            assert (self.latest == self.latest[0]).all()
        self.latest = job
        return 2 * job


def reverse(data):
    return data[::-1]


class Drawing(ConductorWorker):
    """Draws a number, when another worker is there to draw one too."""

    def process_job(self, job):
        self.request("here")
        return float(np.random.random())  # noqa: NPY002 - the legacy generator is what is reseeded
