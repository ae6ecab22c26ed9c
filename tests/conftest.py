"""For all tests: Hypothesis without a clock, since a busy machine must not fail a test.

HYPOTHESIS_PROFILE=repeatable takes the same examples every time, for what decides whether a change lands.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("unhurried"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unhurried"))
