"""The number of salient patches, and mr* (SPIRL, App. B.5, Fig. 8): `python -m
pipeline.commands.ratio NAME`.

Counts the patches that an encoder's dynamic K selects without a limit, over the frames that it was
pretrained on. mr* is the smallest of 5 %, 10 %, ... 95 % of the patches that is enough for strictly
more than 99.9 % of the frames. The paper then tries mr* and 5 % to either side as `max_ratio`. A
single frame may decide: for Frostbite's 5,000 frames (bench/measured), 35 % is enough for 4,995,
which is exactly 99.9 %, so mr* is 40 %. One more frame would make it 35 %. The command prints this
margin. It writes `ratio.json` (with the histogram's counts) and `ratio.png` to
`artifacts/.runs/ratio-<NAME>/`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import FoveaError
from datasets.files import write_atomic
from datasets.pictures import spread
from datasets.shards import read_frames
from pipeline import params
from pipeline.runtime import artifact
from pipeline.runtime.progress import Progress
from pipeline.runtime.record import RUNS
from pipeline.runtime.stage import plain_errors
from pretrain.encoders import mae
from pretrain.figures import bar_chart
from pretrain.frozen import load_encoder
from pretrain.images import channels_first
from pretrain.spirl import select

EXCEPT = 1000  # fewer than one in so many frames may need more than mr*
STEP = 5  # per cent between two ratios
BATCH = 16  # frames between two lines of progress


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.commands.ratio", description=__doc__)
    parser.add_argument("encoder", help="an entry of `encoders` with an error map: model mae")
    parser.add_argument(
        "--slope", type=float, help="slope of the cut (default: the entry's); 1 is 45 degrees"
    )
    parser.add_argument("--frames", type=int, help="number of frames, evenly spread (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with plain_errors():
        stats = measure(arguments.encoder, arguments.slope, arguments.frames)
        folder = RUNS / f"ratio-{arguments.encoder}"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "ratio.json", (json.dumps(stats) + "\n").encode())
        marks = {f"mr* {stats['mr_star']} %": stats["patches"] * stats["mr_star"] / 100}
        name = f"salient patches in a frame ({stats['frames']:,} frames of {arguments.encoder})"
        bars = bar_chart(stats["histogram"], marks, name=name)
        Image.fromarray(bars).save(folder / "ratio.png")
    print(
        f"{arguments.encoder}: {stats['mean']:.1f} of {stats['patches']} patches are salient at "
        f"slope {stats['slope']:g} ({stats['least']} to {stats['most']} in {stats['frames']:,} "
        f"frames)\nmr* {stats['mr_star']} %: {margin(stats)}\nmax_ratio to try: "
        f"{', '.join(f'{ratio / 100:g}' for ratio in stats['try'])}\n{folder / 'ratio.png'}"
    )


def measure(name: str, slope: float | None, count: int | None) -> dict[str, Any]:
    """The `summary` of `count` of an encoder's frames, or all, at `slope` or its entry's.

    Raises FoveaError if the encoder is not built or has no error map, or for an invalid argument.
    """
    if slope is not None and not slope > 0:
        raise FoveaError(f"--slope: {slope}, must be above 0")
    if count is not None and count < 1:
        raise FoveaError(f"--frames: {count}, must be at least 1")
    entry = params.load().entry("encoders", name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = load_encoder(artifact.open_artifact(entry.label).folder, device=device)
    if not isinstance(encoder, mae.Encoder):
        raise FoveaError(f"encoders.{name}: model {entry.keys.model} has no error map; mae has")
    data = artifact.open_artifact(entry.inputs()["data"])
    frames = read_frames(data.folder, data.files)
    rows = spread(len(frames), len(frames) if count is None else count)
    slope = encoder.features.slope if slope is None else slope
    progress = Progress(f"ratio {name}", len(rows), "frames")
    counts = []
    for indices in np.split(rows, range(BATCH, len(rows), BATCH)):
        images = channels_first(frames.images[indices]).contiguous()
        error = encoder.errors(images.to(device))
        if not error.isfinite().all():
            raise FoveaError(f"encoders.{name}: an error map is not finite; pretrain it again")
        counts.append(select.salient(error, slope, encoder.features.cut).cpu().numpy())
        progress(len(indices))
    progress.finish()
    return {"slope": slope} | summary(np.concatenate(counts), error.shape[1])


def summary(counts: NDArray[np.int64], patches: int) -> dict[str, Any]:
    """Fig. 8's statistics of the frames' counts, and mr*.

    `histogram` is the number of frames with 0, 1, ... salient patches; `covered` the share of
    frames for which a percentage of the patches is enough; `needed` the number of frames for which
    mr* must be enough; `try` the percentages that the paper tries.
    """
    covered = {
        ratio: float((counts <= patches * ratio / 100 + 1e-9).mean())
        for ratio in range(STEP, 100, STEP)
    }
    needed = len(counts) - (len(counts) - 1) // EXCEPT  # strictly more than 99.9 %
    best = min(
        (r for r, share in covered.items() if round(share * len(counts)) >= needed), default=100
    )
    return {
        "needed": needed,
        "frames": len(counts),
        "patches": patches,
        "mean": float(counts.mean()),
        "least": int(counts.min()),
        "most": int(counts.max()),
        "histogram": np.bincount(counts, minlength=patches + 1).tolist(),
        "covered": covered,
        "mr_star": best,
        "try": [ratio for ratio in (best - STEP, best, best + STEP) if 0 < ratio <= 100],
    }


def margin(stats: dict[str, Any]) -> str:
    """The number of frames for which mr* is enough, and for which the next smaller ratio is."""
    frames, best, needed = stats["frames"], stats["mr_star"], stats["needed"]
    enough = {0: 0, 100: frames} | {r: round(s * frames) for r, s in stats["covered"].items()}
    return (
        f"the smallest that is enough for more than 99.9 % of the frames, which is {needed:,} of "
        f"{frames:,}; it is enough for {enough[best]:,}, and {best - STEP} % for "
        f"{enough[best - STEP]:,}, {needed - enough[best - STEP]:,} too few"
    )


if __name__ == "__main__":
    main()
