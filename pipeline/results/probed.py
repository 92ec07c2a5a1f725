"""Linear probes that were kept: one JSON file an encoder in `pipeline/recipes/measured/probes/`.

An encoder's seeds are entries that differ by `seed` alone, named `...-s0`, `...-s1`; they make one
row of a table, and each way in which the encoder was read another: `drawer-rgb` is the first one
(pooled, or pixels), `drawer-rgb, tokens`, `drawer-rgb, all frames` and so on the others; one that
ends in a point, `drawer-rgb, tokens, object`, is of that point alone. Rows joined by " + " are one,
the mean over them seed by seed. As with policies, only encoders at a
recipe's own settings are taken, everything that they were made from included, or a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline.results.claims import JOINT, SEED
from pipeline.results.measured import (
    MEASURED,
    Encoder,
    Run,
    read_kept,
    record_of,
    run_of,
    write_kept,
)
from pipeline.results.settings import checked_recipes, differences_of_all, home_of
from pipeline.runtime import artifact

PROBED = MEASURED / "probes"
FIRST = ("pooled", "pixels")  # readings that need no name
CONTROL = "mean of the rest"
JUDGED = "image "  # before a point: where it is in the image

Scores = dict[str, dict[str, NDArray[np.float64]]]  # place -> "r2", "error" -> one a split


@dataclass(frozen=True)
class Probed:
    """One pretrained encoder, read in one way."""

    row: str
    seed: str  # "s0"; "" for what has none
    reading: str
    scores: Scores
    points: tuple[str, ...]  # that count
    encoder: Encoder
    frames: str  # label of those probed on
    rows: int
    episodes: int
    run: Run
    note: str
    failed: None = None  # there are no failed probes

    def games(self, protocol: str) -> NDArray[np.float64]:
        """R² of each split, the mean over the points of the image that move."""
        judged = [self.scores[JUDGED + point]["r2"] for point in self.points]
        moving = [r2 for r2 in judged if np.isfinite(r2).all()]
        return np.asarray(np.mean(moving, axis=0))


@dataclass(frozen=True)
class Pooled:
    """Encoders of several tasks and one seed, taken as one."""

    parts: tuple[Probed, ...]
    failed: None = None

    def games(self, protocol: str) -> NDArray[np.float64]:
        """Of each split, the mean over the parts."""
        return np.asarray(np.mean([part.games(protocol) for part in self.parts], axis=0))


def with_pooled(
    probes: Mapping[str, Sequence[Probed]], rows: Iterable[str]
) -> dict[str, Sequence[Probed | Pooled]]:
    """The rows that are measured, joined ones and those of a point among `rows` too where all their
    parts are.
    """
    found: dict[str, Sequence[Probed | Pooled]] = dict(probes)
    for row in rows:
        kept = [_seeds_of(name, probes) for name in row.split(JOINT)]
        if row not in probes and all(kept):
            parts = [{one.seed: one for one in seeds} for seeds in kept]
            shared = sorted(set.intersection(*(set(part) for part in parts)))
            if shared:
                found[row] = [Pooled(tuple(part[seed] for part in parts)) for seed in shared]
    return found


def _seeds_of(row: str, probes: Mapping[str, Sequence[Probed]]) -> Sequence[Probed]:
    """What a row that is not joined is made of, one of a point too; empty where it is not there."""
    whole, _, point = row.rpartition(", ")
    if whole in probes and point in probes[whole][0].points:
        return [replace(one, points=(point,)) for one in probes[whole]]
    return probes.get(row, ())


def read_probed(folder: Path = PROBED) -> dict[str, list[Probed]]:
    """Row -> its seeds in order. FoveaError naming a file that is malformed or of other settings,
    and a row whose encoders were probed on different frames.
    """
    found: dict[str, list[Probed]] = {}
    for path in sorted(folder.glob("*.json")):
        for one in _checked(path, read_kept(path, "probe it again")):
            found.setdefault(one.row, []).append(one)
    for row, seeds in found.items():
        if len({(s.frames, s.rows, s.episodes) for s in seeds}) > 1:
            raise FoveaError(f"{folder}: {row}: its seeds were probed on different frames")
    return found


def add_probe(
    encoder: str, note: str = "", *, root: Path = artifact.ROOT, folder: Path = PROBED
) -> Path:
    """Keep what `python -m pipeline.commands.probe ENCODER` found; returns the file.

    Raises FoveaError where it was not probed, or is not at a recipe's settings and no note says so.
    """
    found = root / ".runs" / f"probe-{encoder}" / "probe.json"
    if not found.exists():
        raise FoveaError(
            f"{found}: not there yet; `python -m pipeline.commands.probe {encoder}` writes it"
        )
    value = json.loads(found.read_text("utf-8"))
    made = value["made_from"][f"encoders/{encoder}"]["digest"]
    value |= {
        "note": note,
        "run": record_of(root, f"probe-{encoder}"),
        "pretraining": record_of(root, f"pretrain-{encoder}", made),
    }
    path = folder / f"{encoder}.json"
    _checked(path, value)
    write_kept(path, value)
    return path


def _checked(path: Path, value: Any) -> list[Probed]:
    try:
        found = [_probed(value, reading) for reading in value["scores"] if reading != CONTROL]
        made_from, probed_on = value["made_from"], value["frames"]
        name = str(value["encoder"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); probe it again") from error
    if path.stem != name:
        raise FoveaError(f"{path}: holds the probe of {name}; rename or remove it")
    recipe = home_of("encoders", name, made_from | probed_on)
    if recipe is None:
        raise FoveaError(f"{path}: {name} stands in none of {', '.join(checked_recipes())}")
    if not value["note"] and not made_from.keys().isdisjoint(probed_on):
        raise FoveaError(
            f"{path}: probed on the frames that it was pretrained on; probe it on others "
            "(--frames), or say so in a note (--note), which the ledger shows"
        )
    changed = differences_of_all(made_from | probed_on, recipe)
    if changed and not value["note"]:
        raise FoveaError(
            f"{path}: {'; '.join(changed)} not as in the recipes; say so in a note (--note), which "
            "the ledger shows"
        )
    return found


def _probed(value: Mapping[str, Any], reading: str) -> Probed:
    name = str(value["encoder"])
    made = value["made_from"][f"encoders/{name}"]
    seed = SEED.search(name)
    ways = [way for way in reading.split(", ") if way not in FIRST]
    row = ", ".join([SEED.sub("", name), *ways])
    ((frames, _),) = value["frames"].items()
    pretraining = value["pretraining"]
    own = next(key for key in value["made_from"] if key.startswith("frames/"))
    return Probed(
        row=row,
        seed=seed.group()[1:] if seed else "",
        reading=reading,
        scores={
            place: {key: _splits(one[key], value["splits"]) for key in ("r2", "error")}
            for place, one in value["scores"][reading].items()
        },
        points=tuple(
            place.removeprefix(JUDGED)
            for place in value["scores"][reading]
            if place.startswith(JUDGED)
        ),
        encoder=Encoder(
            name=name,
            digest=str(made["digest"]),
            entry=dict(made["entry"]),
            made_from=dict(value["made_from"]),
            frames=int(value["made_from"][own]["entry"]["count"]),
            trained="epochs" in made["entry"],
            run=None if pretraining is None else run_of(pretraining),
        ),
        frames=str(frames),
        rows=int(value["rows"]),
        episodes=int(value["episodes"]),
        run=run_of(value["run"]),
        note=str(value["note"]),
    )


def _splits(values: list[float | None], splits: list[int]) -> NDArray[np.float64]:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    if numbers.shape != (len(splits),) or not len(splits) or np.isinf(numbers).any():
        raise ValueError(f"not a list of {len(splits)} numbers")
    return numbers
