"""How many patches are salient, and mr* (SPIRL, App. B.5, Fig. 8): `python -m pipeline.ratio NAME`.

Counts, over the frames that an encoder was pretrained on, the patches that its dynamic K would keep
if there were no limit. mr* is the smallest of 5 %, 10 %, ... 95 % of the patches that is enough for
more than 99.9 % of the frames; the paper then tries mr* and 5 % to either side as `max_ratio`.
Writes `ratio.json` and `ratio.png` to `artifacts/.runs/ratio-<ENCODER>/`.
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
from pipeline import artifact, params
from pipeline.progress import Progress
from pipeline.stage import RUNS, told_plainly
from pretrain.encoder import load_encoder
from pretrain.figures import bar_chart

ENOUGH = 0.999  # of the frames must find room for all their salient patches
STEP = 5  # per cent between the ratios tried


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.ratio", description=__doc__)
    parser.add_argument("encoder", help="an entry of `encoders` that has an error map, such as mae")
    parser.add_argument("--slope", type=float, default=1.0, help="of the cut; 1 is 45 degrees")
    parser.add_argument("--frames", type=int, help="so many, evenly spread, instead of all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with told_plainly():
        counts, patches = count_salient(arguments.encoder, arguments.slope, arguments.frames)
        found = summary(counts, patches)
        folder = RUNS / f"ratio-{arguments.encoder}"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"slope": arguments.slope} | found) + "\n"
        write_atomic(folder / "ratio.json", text.encode())
        bars = np.bincount(counts, minlength=patches + 1).tolist()
        marks = {f"mr* {found['mr_star']} %": patches * found["mr_star"] / 100}
        Image.fromarray(bar_chart(bars, marks)).save(folder / "ratio.png")
    print(
        f"{arguments.encoder}: {found['frames']:,} frames, salient patches {found['mean']:.1f} on "
        f"average ({found['least']} to {found['most']}) of {patches}; mr* {found['mr_star']} %\n"
        f"{folder / 'ratio.png'}"
    )


def count_salient(name: str, slope: float, wanted: int | None) -> tuple[NDArray[np.int64], int]:
    """Salient patches of each frame, (frames,), and how many patches there are.

    Raises FoveaError where the encoder is not built, has no error map, or `slope` is no slope.
    """
    if slope <= 0:
        raise FoveaError(f"--slope: {slope}, must be above 0")
    entry = params.load().entry("encoders", name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder: Any = load_encoder(artifact.open_artifact(entry.label).folder, device=device)
    if not hasattr(encoder, "errors"):
        raise FoveaError(f"encoders.{name}: model {entry.keys.model} has no error map; mae has")
    data = artifact.open_artifact(entry.inputs()["data"])
    frames = read_frames(data.folder, data.files)
    picked = spread(len(frames), len(frames) if wanted is None else wanted)
    progress = Progress(f"ratio {name}", len(picked), "frames")
    counts = []
    for index in picked:
        image = torch.from_numpy(frames.images[index]).permute(2, 0, 1)[None].to(device)
        error = encoder.errors(image)
        counts.append(int((error > slope * error.mean()).sum()))
        progress()
    progress.finish()
    return np.array(counts), error.shape[1]


def summary(counts: NDArray[np.int64], patches: int) -> dict[str, Any]:
    """What Fig. 8 shows of the counts, as numbers; `covered` is the share of frames by per cent."""
    covered = {
        ratio: float((counts <= patches * ratio / 100 + 1e-9).mean())
        for ratio in range(STEP, 100, STEP)
    }
    enough = [ratio for ratio, share in covered.items() if share > ENOUGH]
    return {
        "frames": len(counts),
        "patches": patches,
        "mean": float(counts.mean()),
        "least": int(counts.min()),
        "most": int(counts.max()),
        "covered": covered,
        "mr_star": enough[0] if enough else 100,
    }


if __name__ == "__main__":
    main()
