"""Hypothesis: few examples in the suite, always the same; by hand

pytest tests/properties --hypothesis-profile=large
"""

import os
import resource

import pytest
from hypothesis import HealthCheck, settings

SHARED = dict(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("suite", max_examples=40, derandomize=True, **SHARED)
settings.register_profile("large", max_examples=int(os.environ.get("EXAMPLES", 10_000)), **SHARED)
# the command line's profile is loaded before this file is; where the variable CI is set,
# Hypothesis begins with a profile of its own, which knows nothing of the above
if settings.get_current_profile_name() != "large":
    settings.load_profile("suite")

MOST_BYTES = 2**30


@pytest.fixture(autouse=True)
def _bounded_memory():
    """A header that asks for more memory than its file can fill does not get it."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
