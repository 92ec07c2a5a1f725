"""Linear probes of a frozen encoder's features: `python -m pipeline.commands.probe ENCODER...
[--frames NAME]`.

Targets (`pretrain/metrics/probe.py`) are tip, object and goal in the image (pixels) and in the
world (metres), which come with Meta-World's frames. Frames with one of the three outside of the
image are left out, the same ones for every encoder; occlusion is no reason.

Each encoder is read in several ways, as far as it has them:
- pooled: the mean over its tokens as a policy gets them, or the pixels;
- tokens: all of them, side by side;
- global token: that one alone;
- image alone: pooled, its saliency left out (ViSaRL's pretraining only).

A map is fitted on `FEW` frames: from thousands even an untrained encoder's features and pixels are
linear in the targets (R² 0.96 on Drawer Open). What all frames give stands beside it. PiCANet's map
of a frame is computed once for all readings and encoders of one command.

`--frames` names frames that no encoder was pretrained on; without it, its own are taken. A command
and no stage, because only some frames have points. Writes drafts of records to
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
from pipeline.runtime.stage import told_plainly
from pretrain.encoder import Encoder, Obs
from pretrain.frozen import load_encoder
from pretrain.images import channels_first
from pretrain.metrics.probe import Probe, Score, episodes_of, few, score_mean, split

POINTS = ("tip", "object", "goal")  # the rows of info["points"]
# Where in info["state"], in metres; of the gripper it has the hand, not the tip.
WORLD = {"hand": slice(0, 3), "object": slice(4, 7), "goal": slice(36, 39)}
SPLITS = (0, 1, 2)  # seeds of the shares that are held out
FEW = 100  # frames that a map is fitted on; a sixth of the rest chooses its penalty
ALL = "all frames"  # of a reading whose map was fitted on as many as there are
ROWS = 3_000  # frames, evenly spread; their products are one table
BATCH = 16  # frames between two lines of progress

Floats = NDArray[np.float32]
# Digests of the maps that an encoder learned on and of the frames -> bytes of a batch -> its maps.
Maps = dict[tuple[str | None, str], dict[bytes, Tensor]]


@dataclass(frozen=True)
class Reading:
    """One way to read an encoder's features."""

    name: str
    features: dict[str, Any]  # that it is loaded with
    row: str  # the "mean" of its tokens, the "last", or all of them, "flat"


@dataclass(frozen=True)
class Scene:
    """Frames to probe on, and what is to be read off them."""

    images: NDArray[np.uint8]  # (n, H, W, 3)
    episodes: NDArray[np.int64]  # (n,)
    places: dict[str, Floats]  # "image tip" -> (n, 2), "world hand" -> (n, 3), ...
    left_out: int  # frames that show not all points


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.probe", description=__doc__)
    parser.add_argument("encoders", nargs="+", metavar="ENCODER", help="an entry of `encoders`")
    parser.add_argument("--frames", help="an entry of `frames`, instead of those pretrained on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    maps: Maps = {}
    with told_plainly():
        for name in arguments.encoders:
            began = time.time()
            fields = measure(name, arguments.frames, maps)
            path = write_draft(artifact.ROOT, **fields)
            record("probe", name, began)
            print(f"{table(fields)}\n{path}")


def measure(name: str, frames: str | None = None, maps: Maps | None = None) -> dict[str, Any]:
    """The scores of one encoder in every reading: the fields of a record. `maps` are those computed
    for the encoder before; they are kept for encoders of the same maps that follow.

    Raises FoveaError where an artifact is missing, was made from others than those there now, or
    its frames have no points, too few episodes, or another size than the encoder's.
    """
    checked = params.load()
    entry = checked.entry("encoders", name)
    made_from = artifact.lineage(entry.label)
    label = checked.entry("frames", frames).label if frames else frames_of(made_from)
    data = artifact.open_artifact(label)
    scene = scene_of(read_frames(data.folder, data.files), label)
    folder = artifact.open_artifact(entry.label).folder
    parts = [split(scene.episodes, seed) for seed in SPLITS]
    lines: dict[str, Any] = {"mean of the rest": [score_mean(scene.places, p) for p in parts]}
    maps, key = {} if maps is None else maps, (_saliency(made_from), data.digest)
    for other in maps.keys() - {key}:
        del maps[other]
    cache = maps.setdefault(key, {})
    for reading, features in read(name, str(folder), scene.images, cache):
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
    """The label of the frames that an encoder goes back to."""
    return next(label for label in made_from if label.startswith("frames/"))


def scene_of(frames: FrameSet, label: str) -> Scene:
    """`ROWS` of the frames that show all points, evenly spread."""
    if "points" not in frames.info or "state" not in frames.info:
        raise FoveaError(f"{label}: its frames have no points to probe for; Meta-World's have")
    points = np.asarray(frames.info["points"], np.float32)
    height, width = frames.images.shape[1:3]
    inside = ((points >= 0) & (points <= (width, height))).all((1, 2))
    rows = np.flatnonzero(inside)
    rows = rows[spread(len(rows), min(ROWS, len(rows)))]
    episodes = episodes_of([frames.stream[rows], frames.episode[rows]])
    if len(np.unique(episodes)) < 4:
        raise FoveaError(
            f"{label}: {len(np.unique(episodes))} episodes show all points, too few to hold some "
            "out; collect more `streams`"
        )
    places = {f"image {name}": points[rows, i] for i, name in enumerate(POINTS)}
    state = np.asarray(frames.info["state"], np.float32)[rows]
    places |= {f"world {name}": state[:, at] for name, at in WORLD.items()}
    return Scene(frames.images[rows], episodes, places, int((~inside).sum()))


def readings(encoder: Encoder) -> list[Reading]:
    """The ways in which this encoder can be read; FoveaError for one that reads no image."""
    if encoder.info is not None:
        raise FoveaError(f"model {encoder.info}: reads no image, so there is nothing to probe")
    if not encoder.max_tokens:
        return [Reading("pixels", {}, "flat")]
    own = {field.name for field in dataclasses.fields(encoder.features)}
    if "pool" in own:  # of the same tokens, which are computed once
        every, pooled = {"pool": "none"}, encoder.features.pool
        ways = [
            Reading("pooled", every, "last" if pooled == "global" else "mean"),
            Reading("tokens", every, "flat"),
            Reading("global token", every, "last"),
        ]
    else:
        every = {"select": "all"} if "select" in own else {}
        ways = [Reading("pooled", {}, "mean"), Reading("tokens", every, "flat")]
    if encoder.config.needs_saliency:
        ways.append(Reading("image alone", {"use_saliency": False}, "mean"))
    return ways


def read(
    name: str, folder: str, images: NDArray[np.uint8], cache: dict[bytes, Tensor]
) -> Iterator[tuple[str, Floats]]:
    """Each reading's name and its features (n, D) of all images; saliency maps go through
    `cache`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shown = (images.shape[3], *images.shape[1:3])
    for _, same in groupby(readings(load_encoder(folder)), key=lambda way: way.features):
        ways = list(same)
        encoder = load_encoder(folder, features=ways[0].features, device=device)
        if encoder.image_shape != shown:
            raise FoveaError(
                f"encoders/{name}: sees images {encoder.image_shape}, the frames are {shown}; "
                "name frames of its size"
            )
        if encoder.saliency is not None:
            encoder.saliency = _Cached(encoder.saliency, cache)
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


class _Cached(nn.Module):
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
    """The digest of the maps that an encoder learned on: their source is the one it carries."""
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
    units, measured = {"image": (1, "px"), "world": (100, "cm")}, fields["scores"]
    head = (
        f"{fields['artifact']}: {measured['rows']:,} frames of {measured['episodes']} episodes "
        f"({measured['left_out']:,} left out, a point is out of the image), "
        f"{len(measured['splits'])} splits, fitted on {measured['fitted']} or all training frames; "
        "R² and mean distance"
    )
    lines = [head]
    for reading, places in measured["readings"].items():
        cells = []
        for place, scores in places.items():
            scale, unit = units[place.split()[0]]
            known = [r2 for r2 in scores["r2"] if r2 is not None]
            r2 = f"{np.mean(known):.3f}" if known else "constant"
            cells.append(f"{place} {r2}, {scale * np.mean(scores['error']):.2f} {unit}")
        lines.append(f"  {reading}: {'; '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
