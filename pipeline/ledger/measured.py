"""What was measured here: one JSON file a seed in `pipeline/recipes/measured/`, kept in git.

`add` makes the files from the artifacts of a finished (or partly finished) evaluation. Only runs at
a recipe's own settings are taken, so that a quick run can never pass for a result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from datasets.files import write_atomic
from pipeline import artifact, params
from pipeline.recipe import RECIPES, recipes

MEASURED = RECIPES / "measured"
SMALL = ("quick",)  # recipes that only show that the pipeline works
FREE = frozenset({"seeds", "checkpoint_every"})  # of an entry: change no seed's scores at the end


@dataclass(frozen=True)
class Seed:
    """One trained seed and its evaluation games."""

    policy: str
    seed: int
    failed: str | None  # why, where training stopped early
    entry: dict[str, Any]  # the policy's, all defaults written out
    encoder: dict[str, Any]
    run: dict[str, Any]  # commit, machine, wall_seconds
    note: str
    steps: tuple[int, ...]  # of the checkpoints, rising
    returns: tuple[NDArray[np.float64], ...]  # of each checkpoint's games
    random: NDArray[np.float64]  # of the uniform random policy's

    def games(self, protocol: str) -> NDArray[np.float64]:
        """The games that count: the last checkpoint's, or those of the best median.

        A seed that failed plays with the last weights it kept; without any it plays at random.
        """
        if not self.returns:
            return self.random
        if protocol == "mean":
            return self.returns[-1]
        return max(self.returns, key=lambda games: float(np.median(games)))


def read_measured(folder: Path = MEASURED) -> dict[str, list[Seed]]:
    """Policy -> its seeds in order. Raises FoveaError naming the file that is malformed."""
    found: dict[str, list[Seed]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            seed = _seed(json.loads(path.read_text("utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise FoveaError(f"{path}: malformed ({error!r}); measure it again") from error
        if path.name != file_name(seed.policy, seed.seed):
            raise FoveaError(f"{path}: holds seed {seed.seed} of {seed.policy}; rename or remove")
        found.setdefault(seed.policy, []).append(seed)
    for policy, seeds in found.items():
        entries = [{k: v for k, v in s.entry.items() if k not in FREE} for s in seeds]
        if any(entry != entries[0] for entry in entries):
            raise FoveaError(f"{folder}: the seeds of {policy} were not trained alike")
        seeds.sort(key=lambda s: s.seed)
    return found


def file_name(policy: str, seed: int) -> str:
    """`frostbite-spirl-seed-0.json`."""
    return f"{policy}-seed-{seed}.json"


def add(
    policy: str, note: str = "", *, root: Path = artifact.ROOT, folder: Path = MEASURED
) -> list[Path]:
    """Keep the scores of every seed of an evaluation; returns the files written.

    Raises FoveaError where the artifacts are missing or damaged, or where the policy was not
    trained as the recipe of that name says.
    """
    trained = artifact.open_artifact(f"policies/{policy}", root)
    played = artifact.open_artifact(f"evaluations/{policy}", root)
    evaluation = json.loads((played.folder / "evaluation.json").read_text())
    entry = trained.manifest["entry"]
    _check(policy, entry)
    encoder = artifact.open_artifact(f"encoders/{entry['encoder']}", root)
    run = json.loads((root / ".runs" / f"train-{policy}.json").read_text())
    written = []
    folder.mkdir(exist_ok=True)
    for seed in evaluation["seeds"]:
        kept = {
            "policy": policy,
            "seed": seed["seed"],
            "failed": seed["failed"],
            "note": note,
            "entry": entry,
            "encoder": {"digest": encoder.digest, "entry": encoder.manifest["entry"]},
            "versions": trained.manifest["versions"],
            "run": run,
            "games": evaluation["games"],
            "epsilon": evaluation["epsilon"],
            "checkpoints": seed["checkpoints"],
            "random": evaluation["random"],
        }
        path = folder / file_name(policy, seed["seed"])
        write_atomic(path, (json.dumps(kept) + "\n").encode())
        written.append(path)
    return written


def _check(policy: str, entry: Mapping[str, Any]) -> None:
    for name, path in recipes().items():
        checked = params.load(path).tables["policies"]
        if name not in SMALL and policy in checked:
            expected = checked[policy].resolved(FREE)
            differ = [k for k, v in expected.items() if entry.get(k) != v and k not in FREE]
            # Evaluation keys stand in no trained policy's entry.
            differ = [key for key in differ if key not in ("games", "epsilon")]
            if differ:
                raise FoveaError(
                    f"policies/{policy}: {', '.join(differ)} not as in recipe {name}; only runs at "
                    "a recipe's own settings are kept"
                )
            return
    raise FoveaError(f"policies/{policy}: stands in no recipe but {', '.join(SMALL)}")


def _seed(value: Mapping[str, Any]) -> Seed:
    points = sorted(value["checkpoints"], key=lambda point: int(point["step"]))
    return Seed(
        policy=str(value["policy"]),
        seed=int(value["seed"]),
        failed=None if value["failed"] is None else str(value["failed"]),
        entry=dict(value["entry"]),
        encoder=dict(value["encoder"]),
        run=dict(value["run"]),
        note=str(value["note"]),
        steps=tuple(int(point["step"]) for point in points),
        returns=tuple(_returns(point["returns"]) for point in points),
        random=_returns(value["random"]["returns"]),
    )


def _returns(values: object) -> NDArray[np.float64]:
    returns = np.asarray(values, dtype=np.float64)
    if returns.ndim != 1 or not returns.size or not np.isfinite(returns).all():
        raise ValueError("returns must be a list of finite numbers, at least one")
    return returns
