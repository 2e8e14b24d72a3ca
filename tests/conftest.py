"""What all tests share: the settings of hypothesis, and a SIGINT that arrives."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# No deadline: a busy machine is no fault of the code under test. Examples made of many steps are
# slow to draw by nature.
settings.register_profile(
    "moderate",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("moderate")

# Who starts the tests in the background of a shell has them ignore it, and all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
