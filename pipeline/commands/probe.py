"""Linear probes of a frozen encoder's features: `python -m pipeline.commands.probe ENCODER...
[--frames NAME]`.

Targets (`pretrain/metrics/probe.py`) are tip, object and goal in the image (pixels) and in the
world (metres), which are part of Meta-World's frames. Frames with one of the three outside of the
image are left out for every encoder; occluded points are not.

Each encoder has several readings, as far as it has these features:
- pooled: the mean over its tokens, as a policy gets them, or the pixels;
- tokens: all of them, concatenated;
- global token: that token alone;
- image alone: pooled, without its saliency (ViSaRL's pretraining only).

A linear map is fitted on `FEW` frames: with thousands, even an untrained encoder's features and
pixels predict the targets (R² 0.96 on Drawer Open). Scores with all frames are reported too.
PiCANet's map of a frame is computed once for all readings and encoders of one command.

`--frames` names frames that no encoder was pretrained on; the default are the encoder's own. This
is a command and not a stage because only some frames have points. It writes drafts of records to
`artifacts/.runs/measured`, which `python -m pipeline.commands.results add encoders/NAME --on
frames/NAME` completes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.errors import FoveaError
from datasets.pictures import spread
from datasets.shards import FrameSet, read_frames
from pipeline import params
from pipeline.results.add import write_draft
from pipeline.runtime import artifact
from pipeline.runtime.progress import Progress
from pipeline.runtime.record import record
from pipeline.runtime.stage import plain_errors
from pretrain.encoder import Encoder, Obs
from pretrain.frozen import load_encoder
from pretrain.images import channels_first
from pretrain.metrics.probe import Probe, Score, episodes_of, few, score_mean, split

POINTS = ("tip", "object", "goal")  # the rows of info["points"]
# Positions in info["state"], in metres; it has the hand, not the gripper's tip.
WORLD = {"hand": slice(0, 3), "object": slice(4, 7), "goal": slice(36, 39)}
SPLITS = (0, 1, 2)  # seeds
FEW = 100  # training frames
ALL = "all frames"  # suffix of a reading whose linear map is fitted on all training frames
ROWS = 3_000  # frames, evenly spread; their products are one table
BATCH = 16  # frames between two lines of progress

Floats = NDArray[np.float32]
# Digests of the maps that an encoder was trained on and of the frames -> bytes of a batch -> maps.
Maps = dict[tuple[str | None, str], dict[bytes, Tensor]]


@dataclass(frozen=True)
class Reading:
    """One choice of an encoder's features."""

    name: str
    features: dict[str, Any]  # with which it is loaded
    row: str  # the "mean" of its tokens, the "last", or all of them, "flat"


@dataclass(frozen=True)
class Scene:
    """The frames of a probe, and the positions to predict."""

    images: NDArray[np.uint8]  # (n, H, W, 3)
    episodes: NDArray[np.int64]  # (n,)
    places: dict[str, Floats]  # "image tip" -> (n, 2), "world hand" -> (n, 3), ...
    left_out: int  # frames without all points in the image


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.probe", description=__doc__)
    parser.add_argument("encoders", nargs="+", metavar="ENCODER", help="an entry of `encoders`")
    parser.add_argument("--frames", help="an entry of `frames` (default: those pretrained on)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    maps: Maps = {}
    with plain_errors():
        for name in arguments.encoders:
            began = time.time()
            fields = measure(name, arguments.frames, maps)
            path = write_draft(artifact.ROOT, **fields)
            record("probe", name, began)
            print(f"{table(fields)}\n{path}")


def measure(name: str, frames: str | None = None, maps: Maps | None = None) -> dict[str, Any]:
    """The scores of one encoder in every reading: the fields of a record. `maps` is a cache for
    encoders that were trained on the same maps.

    Raises FoveaError where an artifact is missing or was made from another version of its inputs,
    or its frames have no points, too few episodes, or another size than the encoder's.
    """
    entries = params.load()
    entry = entries.entry("encoders", name)
    made_from = artifact.lineage(entry.label)
    label = entries.entry("frames", frames).label if frames else frames_of(made_from)
    data = artifact.open_artifact(label)
    scene = scene_of(read_frames(data.folder, data.files), label)
    folder = artifact.open_artifact(entry.label).folder
    parts = [split(scene.episodes, seed) for seed in SPLITS]
    lines: dict[str, Any] = {"mean of the rest": [score_mean(scene.places, p) for p in parts]}
    maps, key = {} if maps is None else maps, (_saliency(made_from), data.digest)
    for other in maps.keys() - {key}:
        del maps[other]
    cache = maps.setdefault(key, {})
    for reading, features in features_of(name, str(folder), scene.images, cache):
        probe = Probe(features)
        lines[reading] = [probe.score(scene.places, few(p, FEW)) for p in parts]
        lines[f"{reading}, {ALL}"] = [probe.score(scene.places, p) for p in parts]
    return {
        "artifact": entry.label,
        "on": label,
        "made_from": made_from,
        "measured_on": {label: {"digest": data.digest, "entry": data.manifest["entry"]}},
        "versions": artifact.versions(),
        "scores": {
            "rows": len(scene.images),
            "left_out": scene.left_out,
            "episodes": int(scene.episodes.max()) + 1,
            "splits": list(SPLITS),
            "fitted": FEW,
            "readings": {line: _by_place(scores) for line, scores in lines.items()},
        },
    }


def frames_of(made_from: dict[str, dict[str, Any]]) -> str:
    """The label of the frames that an encoder was pretrained on."""
    return next(label for label in made_from if label.startswith("frames/"))


def scene_of(frames: FrameSet, label: str) -> Scene:
    """`ROWS` evenly spread frames of those with all points in the image."""
    if "points" not in frames.info or "state" not in frames.info:
        raise FoveaError(f"{label}: its frames have no points to predict; Meta-World's have")
    points = np.asarray(frames.info["points"], np.float32)
    height, width = frames.images.shape[1:3]
    inside = ((points >= 0) & (points <= (width, height))).all((1, 2))
    rows = np.flatnonzero(inside)
    rows = rows[spread(len(rows), min(ROWS, len(rows)))]
    episodes = episodes_of([frames.stream[rows], frames.episode[rows]])
    if len(np.unique(episodes)) < 4:
        raise FoveaError(
            f"{label}: {len(np.unique(episodes))} episodes have all points in the image, too few "
            "for a split; collect more `streams`"
        )
    places = {f"image {name}": points[rows, i] for i, name in enumerate(POINTS)}
    state = np.asarray(frames.info["state"], np.float32)[rows]
    places |= {f"world {name}": state[:, at] for name, at in WORLD.items()}
    return Scene(frames.images[rows], episodes, places, int((~inside).sum()))


def readings(encoder: Encoder) -> list[Reading]:
    """The readings that this encoder has. Raises FoveaError if its input is not an image."""
    if encoder.info is not None:
        raise FoveaError(f"model {encoder.info}: its input is no image, so it cannot be probed")
    if not encoder.max_tokens:
        return [Reading("pixels", {}, "flat")]
    own = {field.name for field in dataclasses.fields(encoder.features)}
    if "pool" in own:  # all readings use the same tokens, which are computed once
        every, pool = {"pool": "none"}, encoder.features.pool
        ways = [
            Reading("pooled", every, "last" if pool == "global" else "mean"),
            Reading("tokens", every, "flat"),
            Reading("global token", every, "last"),
        ]
    else:
        every = {"select": "all"} if "select" in own else {}
        ways = [Reading("pooled", {}, "mean"), Reading("tokens", every, "flat")]
    if encoder.config.needs_saliency:
        ways.append(Reading("image alone", {"use_saliency": False}, "mean"))
    return ways


def features_of(
    name: str, folder: str, images: NDArray[np.uint8], cache: dict[bytes, Tensor]
) -> Iterator[tuple[str, Floats]]:
    """Each reading's name and features (n, D) of all images; `cache` is for saliency maps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (images.shape[3], *images.shape[1:3])
    for _, same in groupby(readings(load_encoder(folder)), key=lambda way: way.features):
        ways = list(same)
        encoder = load_encoder(folder, features=ways[0].features, device=device)
        if encoder.image_shape != shape:
            raise FoveaError(
                f"encoders/{name}: is for images {encoder.image_shape}, the frames are {shape}; "
                "name frames of its size"
            )
        if encoder.saliency is not None:
            encoder.saliency = _CachedSource(encoder.saliency, cache)
        names = ", ".join(way.name for way in ways)
        progress = Progress(f"probe {name}, {names}", len(images), "frames")
        rows: dict[str, list[Floats]] = {way.name: [] for way in ways}
        for begin in range(0, len(images), BATCH):
            batch = channels_first(images[begin : begin + BATCH])
            with torch.inference_mode():
                obs = encoder(batch.contiguous().to(device))
                for way in ways:
                    rows[way.name].append(_row(obs, way.row).cpu().numpy())
            progress(len(batch))
        progress.finish()
        for way in ways:
            yield way.name, np.concatenate(rows.pop(way.name))


class _CachedSource(nn.Module):
    """A source of saliency that computes each map once."""

    def __init__(self, source: nn.Module, cache: dict[bytes, Tensor]) -> None:
        super().__init__()
        self.source, self.cache = source, cache

    def forward(self, image: Tensor) -> Tensor:
        key = image.cpu().numpy().tobytes()
        if key not in self.cache:
            self.cache[key] = self.source(image)
        return self.cache[key]


def _saliency(made_from: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The digest of the maps that an encoder was trained on, whose source it carries."""
    maps = (one["digest"] for label, one in made_from.items() if label.startswith("saliency/"))
    return next(maps, None)


def _row(obs: Obs, row: str) -> Tensor:
    """(B, D): one row of features a frame."""
    if "x" not in obs:
        return obs["image"].float().flatten(1) / 255
    if row == "flat":
        return obs["x"].flatten(1)
    if row == "last":
        return obs["x"][:, -1]
    real = obs["mask"][..., None]
    return (obs["x"] * real).sum(1) / real.sum(1).clamp(min=1)


def _by_place(scores: list[dict[str, Score]]) -> dict[str, dict[str, list[float | None]]]:
    """Place -> R², error and penalty, of each split."""
    return {
        place: {
            key: [asdict(one[place])[key] for one in scores] for key in ("r2", "error", "penalty")
        }
        for place in scores[0]
    }


def table(fields: dict[str, Any]) -> str:
    """The scores as text: a line a reading, means over the splits."""
    units, record = {"image": (1, "px"), "world": (100, "cm")}, fields["scores"]
    head = (
        f"{fields['artifact']}: {record['rows']:,} frames of {record['episodes']} episodes "
        f"({record['left_out']:,} left out, with a point outside of the image), "
        f"{len(record['splits'])} splits, fitted on {record['fitted']} or all training frames; "
        "R² and mean distance"
    )
    lines = [head]
    for reading, places in record["readings"].items():
        cells = []
        for place, scores in places.items():
            scale, unit = units[place.split()[0]]
            values = [r2 for r2 in scores["r2"] if r2 is not None]
            r2 = f"{np.mean(values):.3f}" if values else "constant"
            cells.append(f"{place} {r2}, {scale * np.mean(scores['error']):.2f} {unit}")
        lines.append(f"  {reading}: {'; '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
