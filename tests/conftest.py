"""Settings for all tests."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # as in every stage: sums are split by threads, and tests compare bytes
# The same examples in every run: a test that fails now and then tells of its luck, not of a change.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed before a test's fixtures, so that weights and images are the same and a bound holds."""
    torch.manual_seed(0)
