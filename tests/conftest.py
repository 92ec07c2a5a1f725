"""Settings for all tests."""

import pytest
import torch

torch.set_num_threads(1)  # as in every stage: sums are split by threads, and tests compare bytes


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed before a test's fixtures, so that weights and images are the same and a bound holds."""
    torch.manual_seed(0)
