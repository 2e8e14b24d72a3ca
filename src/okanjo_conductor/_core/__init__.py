"""Decides. Pure: no clock, no I/O, no threads, no logging, no randomness.

`state.ConductorState` is the whole of it::

    step = state.handle(event, now)     # the only thing that changes state
    state.next_deadline()               # when to hand it TimePassed, at the latest

The caller's contract:

1. Deliver (and, where there is a journal, first store) ``step.records``.
2. Carry out ``step.commands`` in order.
3. Turn what comes of them into new events. `now` never goes backwards.

An illegal event raises `IllegalEventError` and changes nothing.
"""
