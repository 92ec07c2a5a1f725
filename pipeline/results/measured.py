"""What was measured here: one JSON file a seed in `pipeline/recipes/measured/`, kept in git.

`add` makes the files from the artifacts of an evaluation, of however many seeds there are. Only
runs at a recipe's own settings are taken, when they are added and whenever they are read, so that a
quick run can never pass for a result. An encoder may differ from the recipe's (a shorter
pretraining), but then a note must say so, and all seeds of the policy must have it.
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
from pipeline.commands.recipe import RECIPES
from pipeline.config.tables import EVALUATION_KEYS
from pipeline.results.settings import checked_recipes, differences, differences_of_all, home_of
from pipeline.results.verdict import STATISTICS
from pipeline.runtime import artifact

MEASURED = RECIPES / "measured"


@dataclass(frozen=True)
class Run:
    """What varies from run to run of a stage."""

    commit: str
    machine: str
    hours: float  # of all its runs, its seeds side by side
    resumed: int  # earlier runs that this one went on from


@dataclass(frozen=True)
class Encoder:
    """The encoder that a seed was trained on."""

    name: str
    digest: str
    entry: dict[str, Any]  # all defaults written out
    made_from: dict[str, Any]  # entries and digests of what its saliency comes from
    frames: int  # that it was pretrained on
    trained: bool  # pixels have nothing to train
    run: Run | None  # of its pretraining, where the record of it was there


@dataclass(frozen=True)
class Seed:
    """One trained seed and its evaluation games."""

    policy: str
    seed: int
    failed: str | None  # why, where training stopped early
    entry: dict[str, Any]  # the policy's, all defaults written out
    encoder: Encoder
    run: Run
    note: str
    steps: tuple[int, ...]  # of the checkpoints, rising
    returns: tuple[NDArray[np.float64], ...]  # of each checkpoint's games
    random: NDArray[np.float64]  # of the uniform random policy's
    successes: tuple[NDArray[np.float64], ...] | None  # likewise 0 or 1; None without successes
    random_successes: NDArray[np.float64] | None
    unstable: int  # games, of all checkpoints, that a simulation ended

    def games(self, protocol: str) -> NDArray[np.float64]:
        """The games that count: the last checkpoint's, or those of the best median.

        A seed that failed plays with the last weights it kept; without any it plays at random.
        FoveaError for successes where none were recorded.
        """
        games, random = self.returns, self.random
        if protocol == "success":
            if self.successes is None or self.random_successes is None:
                raise FoveaError(
                    f"{file_name(self.policy, self.seed)}: has no successes, and its claim is one "
                    "of success rates; evaluate it again"
                )
            games, random = self.successes, self.random_successes
        if not games:
            return random
        return max(games, key=STATISTICS[protocol]) if protocol == "median" else games[-1]


def read_measured(folder: Path = MEASURED) -> dict[str, list[Seed]]:
    """Policy -> its seeds in order.

    Raises:
        FoveaError: a file is malformed, or not a recipe's own settings (naming the file); or seeds
            of one policy were trained on encoders of different settings.
    """
    found: dict[str, list[Seed]] = {}
    for path in sorted(folder.glob("*.json")):
        seed = _checked(path, read_kept(path, "measure it again"))
        found.setdefault(seed.policy, []).append(seed)
    for policy, seeds in found.items():
        seeds.sort(key=lambda s: s.seed)
        _check_alike(f"{folder}: {policy}", seeds)
    return found


def file_name(policy: str, seed: int) -> str:
    """`frostbite-spirl-seed-0.json`."""
    return f"{policy}-seed-{seed}.json"


def add(
    policy: str, note: str = "", *, root: Path = artifact.ROOT, folder: Path = MEASURED
) -> list[Path]:
    """Keep the scores of every seed of an evaluation; returns the files written.

    A seed that is kept already, with the same games, stays as it is: its record is that of the run
    that trained it, which need not be the one that added seeds to it.

    Raises:
        FoveaError: artifacts are missing, damaged or of different trainings; the record of the
            training is not there; a setting is not the recipe's; a seed was measured before, with
            other games. Nothing is written then.
    """
    trained = artifact.open_artifact(f"policies/{policy}", root)
    played = artifact.open_artifact(f"evaluations/{policy}", root)
    encoder = artifact.open_artifact(f"encoders/{trained.manifest['entry']['encoder']}", root)
    for made, source in ((played, trained), (trained, encoder)):
        if made.manifest["inputs"].get(source.label) != source.digest:
            raise FoveaError(
                f"{root / made.label}: not made from the {source.label} that is there now; "
                f"`dvc repro evaluate@{policy}` builds both anew"
            )
    run = record_of(root, f"train-{policy}", trained.digest)
    if run is None:
        raise FoveaError(
            f"{root}/.runs/train-{policy}.json: tells nothing of the {trained.label} that is there "
            f"now, as commit and machine; `dvc repro -f train@{policy}` finds them, or trains anew"
        )
    evaluation = json.loads((played.folder / "evaluation.json").read_text("utf-8"))
    shared = {
        "policy": policy,
        "note": note,
        "entry": trained.manifest["entry"],
        "encoder": {
            "digest": encoder.digest,
            "entry": encoder.manifest["entry"],
            "made_from": _made_from(encoder, root),
            "frames": encoder.manifest["metrics"]["frames"],
            "parameters": encoder.manifest["metrics"]["parameters"],
            "run": record_of(
                root, f"pretrain-{trained.manifest['entry']['encoder']}", encoder.digest
            ),
        },
        "versions": trained.manifest["versions"],
        "run": run,
        "games": evaluation["games"],
        "epsilon": evaluation["epsilon"],
        "random": evaluation["random"],
    }
    files = {
        folder / file_name(policy, seed["seed"]): shared | seed for seed in evaluation["seeds"]
    }
    new = [_checked(path, value) for path, value in files.items()]
    kept = read_measured(folder).get(policy, []) if folder.exists() else []
    by_seed = {seed.seed: seed for seed in new}
    for old in kept:
        if old.seed in by_seed and not _same_games(old, by_seed[old.seed]):
            raise FoveaError(
                f"{folder / file_name(policy, old.seed)}: seed {old.seed} is measured already, "
                "with other games; remove that file first, and say in the commit why"
            )
    known = {seed.seed for seed in kept}
    _check_alike(f"{folder}: {policy}", [*kept, *(s for s in new if s.seed not in known)])
    added = [path for path, seed in zip(files, new, strict=True) if seed.seed not in known]
    for path in added:
        write_kept(path, files[path])
    return added


def _made_from(encoder: artifact.Artifact, root: Path) -> dict[str, Any]:
    """What an encoder's saliency comes from; of frames alone, their count says enough."""
    if not encoder.manifest["entry"]["data"].startswith("saliency/"):
        return {}
    return artifact.lineage(encoder.label, root)


def record_of(root: Path, run: str, digest: str | None = None) -> Any:
    """What was recorded of a stage's run, None where there is nothing, or it is of another artifact
    of that name than the one with `digest`.
    """
    path = root / ".runs" / f"{run}.json"
    found = json.loads(path.read_text("utf-8")) if path.exists() else None
    return found if found and found.get("digest", digest) == digest else None


def read_kept(path: Path, remedy: str) -> Any:
    """What a kept file holds. FoveaError, ending in the remedy, where it is no JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FoveaError(f"{path}: malformed ({error}); {remedy}") from error


def write_kept(path: Path, value: Mapping[str, Any]) -> None:
    """Keep what was measured, a key a line, so that git shows what changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(held)}" for key, held in value.items())
    write_atomic(path, f"{{\n{lines}\n}}\n".encode())


def _checked(path: Path, value: Any) -> Seed:
    try:
        seed = _seed(value)
        settings = {key: value[key] for key in sorted(EVALUATION_KEYS)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FoveaError(f"{path}: malformed ({error!r}); measure it again") from error
    if path.name != file_name(seed.policy, seed.seed):
        raise FoveaError(f"{path}: holds seed {seed.seed} of {seed.policy}; rename or remove it")
    _check_settings(path, seed, settings)
    return seed


def _check_settings(path: Path, seed: Seed, evaluated: Mapping[str, Any]) -> None:
    """FoveaError where the settings are not those of the recipe that has the policy."""
    recipe = home_of("policies", seed.policy)
    if recipe is None:
        raise FoveaError(f"{path}: {seed.policy} stands in none of {', '.join(checked_recipes())}")
    wanted = recipe.entry("policies", seed.policy)
    differ = differences(seed.entry, wanted)
    differ += [key for key, value in evaluated.items() if value != getattr(wanted.keys, key)]
    if differ:
        raise FoveaError(
            f"{path}: {', '.join(differ)} not as in the recipes; only runs at a recipe's own "
            "settings are kept"
        )
    encoder = recipe.entry("encoders", wanted.keys.encoder)
    changed = differences(seed.encoder.entry, encoder)
    frames = recipe.tables["frames"].get(encoder.keys.data.removeprefix("frames/"))
    if frames and seed.encoder.trained and seed.encoder.frames != frames.keys.count:
        changed.append("count of frames")
    changed += differences_of_all(seed.encoder.made_from, recipe)
    if changed and not seed.note:
        raise FoveaError(
            f"{path}: the encoder's {', '.join(changed)} not as in the recipes; say so in a note "
            "(--note), which the ledger shows"
        )


def _check_alike(where: str, seeds: list[Seed]) -> None:
    pretrained = [
        (s.encoder.entry, s.encoder.frames, _entries(s.encoder.made_from))
        for s in seeds
        if s.encoder.trained
    ]
    if any(one != pretrained[0] for one in pretrained):
        raise FoveaError(f"{where}: seeds on encoders of different settings don't mix")


def _entries(made_from: Mapping[str, Any]) -> dict[str, Any]:
    return {label: made["entry"] for label, made in made_from.items()}


def _same_games(old: Seed, new: Seed) -> bool:
    return old.steps == new.steps and all(map(np.array_equal, old.returns, new.returns))


def _seed(value: Mapping[str, Any]) -> Seed:
    points = sorted(value["checkpoints"], key=lambda point: int(point["step"]))
    steps, entry = tuple(int(point["step"]) for point in points), dict(value["entry"])
    failed = None if value["failed"] is None else str(value["failed"])
    if failed is None and (not steps or steps[-1] != entry["steps"]):
        raise ValueError(f"no games after the last of {entry['steps']} steps")
    encoder, succeeds = value["encoder"], "successes" in value["random"]
    return Seed(
        policy=str(value["policy"]),
        seed=int(value["seed"]),
        failed=failed,
        entry=entry,
        encoder=Encoder(
            name=str(entry["encoder"]),
            digest=str(encoder["digest"]),
            entry=dict(encoder["entry"]),
            made_from=dict(encoder.get("made_from", {})),
            frames=int(encoder["frames"]),
            trained=bool(encoder["parameters"]),
            run=None if encoder["run"] is None else run_of(encoder["run"]),
        ),
        run=run_of(value["run"]),
        note=str(value["note"]),
        steps=steps,
        returns=tuple(_numbers(point["returns"], value["games"]) for point in points),
        random=_numbers(value["random"]["returns"], value["games"]),
        successes=tuple(_successes(p, value["games"]) for p in points) if succeeds else None,
        random_successes=_successes(value["random"], value["games"]) if succeeds else None,
        unstable=sum(int(point.get("unstable", 0)) for point in points),
    )


def run_of(value: Mapping[str, Any]) -> Run:
    """A stage's record, as pipeline/runtime/stage.py writes it."""
    machine = value["machine"]
    return Run(
        commit=str(value["commit"]),
        machine=f"{machine['cores']} cores, {machine['processor']}, {machine['gpu'] or 'no GPU'}",
        hours=float(value["wall_seconds"]) / 3600,
        resumed=int(value["resumed"]),
    )


def _numbers(values: object, games: int) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (games,) or not games or not np.isfinite(numbers).all():
        raise ValueError(f"not a list of {games} finite numbers")
    return numbers


def _successes(point: Mapping[str, Any], games: int) -> NDArray[np.float64]:
    numbers = _numbers(point["successes"], games)
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError("successes must be 0 or 1")
    return numbers
