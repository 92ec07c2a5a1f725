"""The list of faults keeps up with the code; `python -m tests.mutants` plants them."""

from __future__ import annotations

import pytest

from tests.mutants import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_a_fault_replaces_is_there_once_and_so_is_its_test(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    path, _, name = fault.test.partition("::")
    assert f"def {name.partition('[')[0]}" in (ROOT / path).read_text()
