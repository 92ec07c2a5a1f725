"""A complete artifacts tree for the report's tests: real PNGs, a real MP4, plausible scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.files import sha256_file
from datasets.sealed import MANIFEST, read_manifest, write_manifest
from pipeline.parts.video import write_video
from rl.play import EpisodeFrame

PARAMS: dict[str, dict[str, dict[str, Any]]] = {
    "frames": {"frostbite": {"env": "atari/Frostbite", "source": "random", "count": 2000}},
    "annotations": {"frostbite-objects": {"frames": "frostbite", "annotator": "objects"}},
    "predictors": {"frostbite-motion": {"data": "frames/frostbite", "model": "motion"}},
    "saliency": {"frostbite-motion": {"frames": "frostbite", "by": "predictors/frostbite-motion"}},
    "encoders": {
        "frostbite-mae": {"data": "frames/frostbite", "model": "mae", "patch": 16, "epochs": 10},
        "frostbite-pixels": {"data": "frames/frostbite", "model": "pixels"},
    },
    "policies": {
        name: {"env": "atari/Frostbite", "encoder": encoder, "agent": "rainbow", "seeds": 2}
        for name, encoder in (
            ("frostbite-spirl", "frostbite-mae"),
            ("frostbite-mae-all", "frostbite-mae"),
            ("frostbite-der", "frostbite-pixels"),
        )
    },
    "exams": {
        name: {"truth": "annotations/frostbite-objects", "by": by, "keypoints": 7}
        for name, by in (
            ("error", "encoders/frostbite-mae"),
            ("motion", "predictors/frostbite-motion"),
            ("watched", "policies/frostbite-spirl"),
        )
    },
}


def picture(height: int, width: int, shift: int = 0) -> NDArray[np.uint8]:
    """An image similar to a frame of a game: sky, floes, a figure."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (45, 87, 176)
    image[: height // 4] = (132, 144, 252)
    for band in range(3):
        top = height * (4 + 2 * band) // 11
        columns = (np.arange(width) + shift * (1 if band % 2 else -1)) // (width // 8) % 2 == 0
        image[top : top + height // 20, columns] = (236, 236, 236)
    row, column = height * 2 // 5, (width // 3 + shift) % (width - 8)
    image[row : row + height // 12, column : column + width // 16] = (210, 164, 74)
    return image


def game(length: int = 24, *, patches: bool = True) -> list[EpisodeFrame]:
    """A short episode on 96×96 frames with patches of 16."""
    frames = []
    for step in range(length):
        selected = np.array([6, 7, 8, 14, 20, 21, 26, 27], np.int64) if patches else None
        weights = np.array([9, 7, 1, 1, 6, 1, 1, 2], np.float32) if patches else None
        frames.append(EpisodeFrame(picture(96, 96, step), 10.0 * step, step, selected, weights))
    return frames


def write_json(path: Path, value: object) -> None:
    """A JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def manifest(
    root: Path, key: str, entry: Mapping[str, Any], inputs: list[str], metrics: Mapping[str, Any]
) -> None:
    """Write the manifest of `key`, whose files exist, and whose inputs have theirs."""
    table, name = key.split("/")
    content = {"format": "fovea/1", "table": table, "name": name, "entry": dict(entry)}
    digests = {label: sha256_file(root / label / MANIFEST) for label in inputs}
    content |= {"inputs": digests, "versions": {}, "metrics": dict(metrics)}
    (root / key).mkdir(parents=True, exist_ok=True)
    write_manifest(root / key / MANIFEST, content | {"files": digests_in(root / key)})


def digests_in(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of an artifact but its manifest."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    return {name: digest for name, digest in named.items() if name != MANIFEST}


def reseal(folder: Path, **changes: object) -> None:
    """Write the manifest again, for the current files and with other values."""
    content = read_manifest(folder / MANIFEST) | {"files": digests_in(folder)} | changes
    write_manifest(folder / MANIFEST, content)


def run_record(root: Path, stage: str, name: str, seconds: float, mebibytes: int) -> None:
    """The record of a stage's runs."""
    machine = {"processor": "Example CPU 3.0 GHz", "cores": 2, "gpu": None}
    content = {"stage": stage, "name": name, "wall_seconds": seconds, "resumed": 0}
    content |= {"peak_memory_bytes": mebibytes * 2**20, "commit": "0123456789ab+"}
    write_json(root / ".runs" / f"{stage}-{name}.json", content | {"machine": machine})


def evaluation(seed: int, level: float, *, failed: bool = False) -> dict[str, Any]:
    """evaluation.json of a policy whose score rises from 60 to `level` in three checkpoints."""
    rng = np.random.default_rng(seed)

    def games(mean: float) -> dict[str, list[float]]:
        returns = [float(v) for v in rng.gamma(4, mean / 4, 10).round(-1)]
        return {"returns": returns, "lengths": [300.0] * 10}

    seeds: list[dict[str, Any]] = [
        {
            "seed": k,
            "failed": None,
            "checkpoints": [
                {"step": 1000 * (i + 1), **games(60 + (level - 60) * i / 2)} for i in range(3)
            ],
        }
        for k in range(2)
    ]
    if failed:
        seeds.append({"seed": 2, "failed": "loss is nan at step 1,812 <b>", "checkpoints": []})
    return {
        "env": "atari/Frostbite",
        "steps": 3000,
        "paper_steps": 100_000,
        "games": 10,
        "seeds": seeds,
        "random": games(65),
    }


def exam(entry: Mapping[str, Any], *recalls: float) -> dict[str, Any]:
    """exam.json of a source of this recall, or of a policy with several seeds."""

    def row(recall: float) -> dict[str, Any]:
        curve = {f"{e / 20:.2f}": [round(100 * recall * e / 10), 100, 200] for e in range(1, 11)}
        points = {"recall": recall, "precision": recall / 2, "keypoints_per_frame": 6.5}
        maps = {"f_max": recall / 2, "f_adaptive": 0.1, "mae": 0.25}
        looked = {"nss": [2 * recall, 1000, [recall, 2 * recall, 3 * recall]]}
        looked |= {"kl": [3.0, 875], "shuffled_auc": [None, 0]}
        return {"maps": maps, "fixations": looked, "points": points | {"curve": curve}}

    def seed_of(seed: int, recall: float) -> dict[str, Any]:
        rows: dict[str, Any] = {"source": row(recall), "shuffled": row(recall / 2)}
        if len(recalls) == 1:
            return {"seed": None, **rows}
        changed = {"occlusion_kl": [recall / 10, 1000], "occlusion_value": [recall, 900]}
        occlusion = {"source": changed, "random": {"occlusion_kl": [0.025, 1000]}}
        return {"seed": seed, **rows, "uniform_attention": row(0.45), "occlusion": occlusion}

    controls = ("zero", 0.0), ("centre", 0.31), ("uniform", 0.28), ("random", 0.22), ("motion", 0.4)
    return dict(entry) | {
        "frames": 1000,
        "epsilon": 0.2,
        "objects": {"objects_per_frame": 5.25, "ceiling": 0.97},
        "controls": {name: row(recall) for name, recall in controls},
        "seeds": [seed_of(seed, recall) for seed, recall in enumerate(recalls)],
    }


def build(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Every artifact of PARAMS, with one failed seed and one missing run record; returns PARAMS."""
    rng = np.random.default_rng(0)
    frames, mae, pixels = "frames/frostbite", "encoders/frostbite-mae", "encoders/frostbite-pixels"
    motion, maps = "predictors/frostbite-motion", "saliency/frostbite-motion"
    counts = {"frames": 2000, "episodes": 7, "shards": 8}
    sheet = np.concatenate(
        [np.concatenate([picture(96, 96, 9 * (6 * r + c)) for c in range(6)], 1) for r in range(4)]
    )
    (root / frames).mkdir(parents=True)
    Image.fromarray(sheet).save(root / frames / "contact_sheet.png")
    manifest(root, frames, PARAMS["frames"]["frostbite"] | {"streams": 8}, [], counts)
    run_record(root, "collect", "frostbite", 3.4, 212)

    manifest(root, motion, PARAMS["predictors"]["frostbite-motion"], [frames], {})
    run_record(root, "fit", "frostbite-motion", 1.2, 240)
    (root / maps).mkdir(parents=True)
    Image.fromarray(sheet[:96]).save(root / maps / "overlay.png")
    manifest(root, maps, PARAMS["saliency"]["frostbite-motion"], [frames, motion], {"frames": 2000})

    entry = PARAMS["encoders"]["frostbite-mae"] | {"batch_size": 64, "base_lr": 1e-3}
    panels = np.concatenate([sheet[:192], 255 - sheet[:192] // 2])
    (root / mae).mkdir(parents=True)
    Image.fromarray(panels).save(root / mae / "panels.png")
    steps = np.arange(1, 321)
    losses = 0.42 + 0.6 * np.exp(-steps / 60) + rng.normal(0, 0.012, 320)
    rows = "".join(f"{s},{v:.5f}\n" for s, v in zip(steps, losses, strict=True))
    (root / mae / "curve.csv").write_text("step,loss\n" + rows)
    manifest(root, mae, entry, [frames], {"final_loss": 0.4312, "parameters": 790_784})
    run_record(root, "pretrain", "frostbite-mae", 196.0, 1410)
    manifest(root, pixels, PARAMS["encoders"]["frostbite-pixels"], [frames], {"parameters": 0})
    run_record(root, "pretrain", "frostbite-pixels", 2.0, 300)

    levels = {"frostbite-spirl": 142.0, "frostbite-mae-all": 97.0, "frostbite-der": 71.0}
    for order, (name, level) in enumerate(levels.items()):
        entry = PARAMS["policies"][name]
        policy, encoder = f"policies/{name}", f"encoders/{entry['encoder']}"
        for seed in range(2):
            rows = "".join(
                f"{s},{rng.gamma(4, (60 + (level - 60) * s / 3000) / 4):.0f},150\n"
                for s in range(150, 3001, 150)
            )
            path = root / policy / f"seed-{seed}" / "curve.csv"
            path.parent.mkdir(parents=True)
            path.write_text("step,return,length\n" + rows)
        manifest(root, policy, entry | {"steps": 3000, "lr": 1e-4}, [encoder], {"seeds": 2})
        evaluated = f"evaluations/{name}"
        shows = None if name == "frostbite-der" else "patches"
        metrics = {"video_seed": 1, "video_step": 3000, "video_shows": shows}
        content = evaluation(order, level, failed=name == "frostbite-mae-all")
        write_json(root / evaluated / "evaluation.json", content)
        filmed = game(patches=shows is not None)
        write_video(root / evaluated / "video.mp4", filmed, patch=16)
        manifest(root, evaluated, entry, [policy, encoder], metrics)
        run_record(root, "train", name, 3725.0, 2860)
        if name != "frostbite-der":
            run_record(root, "evaluate", name, 41.0, 512)
    objects = PARAMS["annotations"]["frostbite-objects"]
    manifest(root, "annotations/frostbite-objects", objects, [frames], {"frames": 1000})
    for name, recalls in (("error", [0.46]), ("motion", [0.62]), ("watched", [0.5, 0.7])):
        entry = PARAMS["exams"][name]
        write_json(root / "exams" / name / "exam.json", exam(entry, *recalls))
        Image.fromarray(sheet).save(root / "exams" / name / "pictures.png")
        inputs = [entry["truth"], entry["by"]]
        manifest(root, f"exams/{name}", entry, inputs, {"frames": 1000})
    return PARAMS
