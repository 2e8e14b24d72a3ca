"""What all tests share: the settings of hypothesis."""

from __future__ import annotations

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
