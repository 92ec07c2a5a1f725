"""Every fault can still be planted and has its test; `python -m tests.mutants` runs them."""

from __future__ import annotations

import ast

import pytest

from tests.mutants import FAULTS, ROOT, Fault, plant


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_has_its_test(fault: Fault) -> None:
    plant(fault, (ROOT / fault.where.partition(":")[0]).read_text("utf-8"))
    path, _, name = fault.tests.partition("::")
    assert f"def {name or 'test_'}" in (ROOT / "tests" / path).read_text("utf-8")


SOURCE = "def f(x): return x ** -2\ndef g(x): return (x + 1) ** -x\nSHARE = 1"


@pytest.mark.parametrize(
    ("where", "old", "new", "planted"),
    [
        ("a.py:g", "_ ** -_1", "_ ** _1", SOURCE.replace("** -x", "** x")),
        ("a.py", "SHARE = _", "SHARE = 2", SOURCE.replace("= 1", "= 2")),
        ("a.py:f", "_ ** -_", "_", None),  # one wildcard is one expression
        ("a.py", "_ ** -_1", "_", None),  # twice
        ("a.py:h", "_ ** -_1", "_", None),
    ],
)
def test_planting(where: str, old: str, new: str, planted: str | None) -> None:
    fault = Fault("", where, old, new, "")
    if planted is None:
        with pytest.raises(LookupError, match="must be once"):
            plant(fault, SOURCE)
    else:
        assert ast.dump(plant(fault, SOURCE)) == ast.dump(ast.parse(planted))
