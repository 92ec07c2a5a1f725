"""Which games an evaluation plays, and which it finds played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.evaluate import _kept_as


def test_games_belong_to_the_weights_that_played_them() -> None:
    """Whatever the file is called: one seed retrained has the name that it had before."""
    digests = {"seed-0/a.safetensors": "1" * 64, "seed-1/a.safetensors": "2" * 64}

    def kept(files: dict[str, str]) -> dict[str, Path]:
        policy = SimpleNamespace(folder=Path("policies/x"), files=files)
        stage: Any = SimpleNamespace(folder=Path("work"), inputs={"policy": policy})
        return {name: _kept_as(stage, policy.folder / name) for name in files}

    before = kept(digests)
    assert len(set(before.values())) == 2 and kept(digests) == before
    after = kept(digests | {"seed-1/a.safetensors": "3" * 64})
    assert after["seed-0/a.safetensors"] == before["seed-0/a.safetensors"]
    assert after["seed-1/a.safetensors"] not in before.values()
