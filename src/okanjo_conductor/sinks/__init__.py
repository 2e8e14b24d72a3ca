"""Sinks: where the outcomes of jobs are written to.

Given to `Conductor(sink=…)`, one or a list. With a journal they are written in the same
transactions as the outcomes are committed, so that each appears exactly once across any number of
kills. A function is a sink, too.
"""

from okanjo_conductor.sinks._base import EachOutcome, Sink, as_sinks

__all__ = ["EachOutcome", "Sink", "as_sinks"]
