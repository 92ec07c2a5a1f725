"""Pictures beside RESULTS.md, drawn from committed numbers: path -> SVG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.ledger.quoted import ROOT
from pipeline.reporting.plots import standalone, success_curve

REACH = "bench/measured/reach-state.json"


def pictures() -> dict[Path, str]:
    """`docs/reach-state.svg`: success of SAC on the state of metaworld/reach over its steps."""
    held = json.loads((ROOT / REACH).read_text("utf-8"))
    tested, explored = (
        np.array([(point["step"], point["success"]) for point in points], np.float64)
        for points in (held["evaluations"], held["training"]["points"])
    )
    drawn = standalone(success_curve("SAC on the state of metaworld/reach", tested, explored))
    return {Path("docs/reach-state.svg"): drawn}
