"""A frame's saliency by PiCANet with and without global attention, and by its student.

ViSaRL took the global cells out to get from 0.1 to 0.01 s a frame (its GPU, 224x224 pixels). The
student has to be thirty times faster than its teacher, in labelling and in acting. Labelling is in
batches, as in the stage `label`; acting is frame by frame. The student resizes frames of any size
to 64x64 pixels. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
import torch

from pipeline.parts.maps import predict
from pretrain.encoder import SaliencySource
from pretrain.saliency import picanet, student

LABEL_FRAMES = {64: 16, 224: 2}  # frames a round by size: ours on a CPU, the paper's
ROUNDS = 5
ACT_CALLS = 20  # a round, with one frame each, as a policy acts


def run() -> dict[str, object]:
    """Median CPU milliseconds a frame on one thread, and of the rounds' ratios."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, object] = {
        "what": "saliency of a frame, one thread, CPU time",
        "rounds": ROUNDS,
    }
    for size, frames in LABEL_FRAMES.items():
        figures |= _compare(f"label_{size}", size, frames)
    figures |= _compare("act_64", 64, 1, ACT_CALLS)
    torch.set_num_threads(threads)
    return figures


def _compare(what: str, size: int, frames: int, calls: int = 1) -> dict[str, float]:
    sources = {
        "local": _picanet("LLL", size),
        "global": _picanet("GGLLL", size),
        "student": student.Training(student.Config(), (3, size, size)).saliency(),
    }
    result = _rounds(size, frames, calls, sources)
    figures = {f"{what}_{name}_ms": statistics.median(times) for name, times in result.items()}
    for name, slow, fast in (("global", "global", "local"), ("student", "local", "student")):
        pairs = zip(result[slow], result[fast], strict=True)
        figures[f"{what}_{name}_ratio"] = statistics.median(a / b for a, b in pairs)
    return figures


def _picanet(attention: Literal["LLL", "GGLLL"], size: int) -> SaliencySource:
    config = picanet.Config(size=size, attention=attention)
    return picanet.Training(config, (3, size, size)).saliency()


def _rounds(
    size: int, frames: int, calls: int, sources: dict[str, SaliencySource]
) -> dict[str, list[float]]:
    """Milliseconds a frame of each source in every round; the sources alternate."""
    images = np.random.default_rng(0).integers(0, 256, (frames, size, size, 3), np.uint8)
    result: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(ROUNDS + 1):
        for name, source in sources.items():
            work = partial(predict, source, images)
            time_per_frame = _milliseconds(work, calls) / (frames * calls)
            if turn:  # the first is the warm-up
                result[name].append(time_per_frame)
    return result


def _milliseconds(work: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        work()
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    for key, value in run().items():
        print(key, value)
