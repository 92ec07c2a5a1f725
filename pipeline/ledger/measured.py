"""What was measured here: one JSON file a seed in `pipeline/recipes/measured/`, kept in git.

`add` makes the files from the artifacts of an evaluation, of however many seeds there are. Only
runs at a recipe's own settings are taken, when they are added and whenever they are read, so that a
quick run can never pass for a result. An encoder may differ from the recipe's (a shorter
pretraining), but then a note must say so, and all seeds of the policy must have it.
"""

from __future__ import annotations

import dataclasses
import functools
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
from pipeline.ledger.verdict import STATISTICS
from pipeline.recipe import RECIPES, recipes
from pipeline.tables import EVALUATION_KEYS, Entry, Params

MEASURED = RECIPES / "measured"
SMALL = ("quick",)  # recipes that only show that the pipeline works
FREE = EVALUATION_KEYS | {"seeds"}  # of a policy: stand in no trained one, or change no seed


@dataclass(frozen=True)
class Run:
    """What varies from run to run of a stage."""

    commit: str
    machine: str
    hours: float  # of its last run, its seeds side by side
    resumed: int  # earlier runs that this one went on from


@dataclass(frozen=True)
class Encoder:
    """The encoder that a seed was trained on."""

    name: str
    digest: str
    entry: dict[str, Any]  # all defaults written out
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

    def games(self, protocol: str) -> NDArray[np.float64]:
        """The games that count: the last checkpoint's, or those of the best median.

        A seed that failed plays with the last weights it kept; without any it plays at random.
        """
        if not self.returns:
            return self.random
        if protocol == "mean":
            return self.returns[-1]
        return max(self.returns, key=STATISTICS[protocol])


def read_measured(folder: Path = MEASURED) -> dict[str, list[Seed]]:
    """Policy -> its seeds in order.

    Raises:
        FoveaError: a file is malformed, or not a recipe's own settings (naming the file); or seeds
            of one policy were trained on encoders of different settings.
    """
    found: dict[str, list[Seed]] = {}
    for path in sorted(folder.glob("*.json")):
        seed = _read(path)
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

    Raises:
        FoveaError: artifacts are missing, damaged or of different trainings; a setting is not the
            recipe's; a seed was measured before, with other games. Nothing is written then.
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
    evaluation = json.loads((played.folder / "evaluation.json").read_text("utf-8"))
    shared = {
        "policy": policy,
        "note": note,
        "entry": trained.manifest["entry"],
        "encoder": {
            "digest": encoder.digest,
            "entry": encoder.manifest["entry"],
            "frames": encoder.manifest["metrics"]["frames"],
            "parameters": encoder.manifest["metrics"]["parameters"],
            "run": _record(root, f"pretrain-{trained.manifest['entry']['encoder']}"),
        },
        "versions": trained.manifest["versions"],
        "run": _record(root, f"train-{policy}"),
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
    _check_alike(f"{folder}: {policy}", [*new, *(s for s in kept if s.seed not in by_seed)])
    folder.mkdir(exist_ok=True)
    for path, value in files.items():
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(held)}" for key, held in value.items())
        write_atomic(path, f"{{\n{lines}\n}}\n".encode())
    return list(files)


def _record(root: Path, run: str) -> Any:
    path = root / ".runs" / f"{run}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _read(path: Path) -> Seed:
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FoveaError(f"{path}: malformed ({error}); measure it again") from error
    return _checked(path, value)


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
    homes = {name: recipe for name, recipe in _checked_recipes().items() if name not in SMALL}
    recipe = next((r for r in homes.values() if seed.policy in r.tables["policies"]), None)
    if recipe is None:
        raise FoveaError(f"{path}: {seed.policy} stands in none of {', '.join(homes)}")
    wanted = recipe.entry("policies", seed.policy)
    differ = _differences(seed.entry, wanted)
    differ += [key for key, value in evaluated.items() if value != getattr(wanted.keys, key)]
    if differ:
        raise FoveaError(
            f"{path}: {', '.join(differ)} not as in the recipes; only runs at a recipe's own "
            "settings are kept"
        )
    encoder = recipe.entry("encoders", wanted.keys.encoder)
    changed = _differences(seed.encoder.entry, encoder)
    frames = recipe.tables["frames"].get(encoder.keys.data.removeprefix("frames/"))
    if frames and seed.encoder.trained and seed.encoder.frames != frames.keys.count:
        changed.append("count of frames")
    if changed and not seed.note:
        raise FoveaError(
            f"{path}: the encoder's {', '.join(changed)} not as in the recipes; say so in a note "
            "(--note), which the ledger shows"
        )


@functools.cache
def _checked_recipes() -> dict[str, Params]:
    return {name: params.load(path) for name, path in recipes().items()}


def _differences(found: Mapping[str, Any], wanted: Entry) -> list[str]:
    """Keys in which a kept entry is not the recipe's.

    A key that it lacks was added to the code later, and its default is what the code did before.
    """
    parts = [part for part in (wanted.keys, wanted.config) if part is not None]
    defaults = {field.name: field.default for part in parts for field in dataclasses.fields(part)}
    written = wanted.resolved(FREE)
    lost = [key for key, value in written.items() if found.get(key, defaults.get(key)) != value]
    return lost + [key for key in found if key not in written and key not in FREE]


def _check_alike(where: str, seeds: list[Seed]) -> None:
    pretrained = [(s.encoder.entry, s.encoder.frames) for s in seeds if s.encoder.trained]
    if any(one != pretrained[0] for one in pretrained):
        raise FoveaError(f"{where}: seeds on encoders of different settings don't mix")


def _same_games(old: Seed, new: Seed) -> bool:
    return old.steps == new.steps and all(map(np.array_equal, old.returns, new.returns))


def _seed(value: Mapping[str, Any]) -> Seed:
    points = sorted(value["checkpoints"], key=lambda point: int(point["step"]))
    steps, entry = tuple(int(point["step"]) for point in points), dict(value["entry"])
    failed = None if value["failed"] is None else str(value["failed"])
    if failed is None and (not steps or steps[-1] != entry["steps"]):
        raise ValueError(f"no games after the last of {entry['steps']} steps")
    encoder = value["encoder"]
    return Seed(
        policy=str(value["policy"]),
        seed=int(value["seed"]),
        failed=failed,
        entry=entry,
        encoder=Encoder(
            name=str(entry["encoder"]),
            digest=str(encoder["digest"]),
            entry=dict(encoder["entry"]),
            frames=int(encoder["frames"]),
            trained=bool(encoder["parameters"]),
            run=None if encoder["run"] is None else _run(encoder["run"]),
        ),
        run=_run(value["run"]),
        note=str(value["note"]),
        steps=steps,
        returns=tuple(_returns(point["returns"], value["games"]) for point in points),
        random=_returns(value["random"]["returns"], value["games"]),
    )


def _run(value: Mapping[str, Any]) -> Run:
    machine = value["machine"]
    return Run(
        commit=str(value["commit"]),
        machine=f"{machine['cores']} cores, {machine['processor']}, {machine['gpu'] or 'no GPU'}",
        hours=float(value["wall_seconds"]) / 3600,
        resumed=int(value["resumed"]),
    )


def _returns(values: object, games: int) -> NDArray[np.float64]:
    returns = np.asarray(values, dtype=np.float64)
    if returns.shape != (games,) or not games or not np.isfinite(returns).all():
        raise ValueError(f"returns must be a list of {games} finite numbers")
    return returns
