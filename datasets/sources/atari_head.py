"""Frames of people who play Atari games, with their gaze: Atari-HEAD (Zhang et al. 2020).

As Nikulin et al. (2019, sec. 4.3) read them. An observation is a step of four of the recording's
frames: observation k is made from frames 4k - 1 and 4k (from 0) by the entry's screen
(datasets/screens.py). A net sees the last `stack` observations, so all gaze on their frames is the
gaze of this one; frames of an earlier episode are left out. For an agent that sees one frame
(S3TA), `stack` is 1. A sample counts in the pixel of 210x160
that is nearest, and not at all outside of the screen.

`gaze` (P, 3) uint16 has a row for each pixel with gaze: x, y and the number of samples; rows of
zeros follow. An action is that of the recording, or the one of the game's own set that presses most
of the same. There is no RAM, and the recording does not say how many lives are left. Missing
rewards and actions are 0.

`reference_shift: true` repeats a mistake of the authors' released code: there a frame has the gaze
on the frame before it. Its recordings were blended (the emulator's `color_averaging`), which the
agents' own frames are not. Trials are streams, in the order of their numbers; the first ones are
read as far as `count` reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from datasets import envs
from datasets.checked import Checked, Range
from datasets.errors import FoveaError
from datasets.frame import Frame
from datasets.gaze_table import Recording
from datasets.recordings import HEIGHT, TABLE, WIDTH, Trial, decode, find_trials, read_frames
from datasets.recordings import read_recording as read
from datasets.screens import SCREENS
from datasets.streams import write_stream

ACTION_LOG, FRAME_INFO = None, ("gaze",)
SKIP = 4  # frames a step
MOST = 8192  # pixels with gaze in an observation: a shard of more could not be read
# What the emulator's actions press: up, right, left, down, fire.
PRESSES = (
    "", "f", "u", "r", "l", "d", "ur", "ul", "dr", "dl", "uf", "rf", "lf", "df", "urf", "ulf",
    "drf", "dlf",
)  # fmt: skip

Gaze = NDArray[np.uint16]  # (P, 3): x, y, samples


@dataclass(frozen=True)
class Config(Checked):
    """Which recordings, and whose gaze an observation has."""

    trials: tuple[Annotated[int, Range(1, 10**9)], ...] = ()  # all of the game's
    stack: Annotated[int, Range(1, 64)] = 4  # observations that a net sees
    reference_shift: bool = False


@dataclass(frozen=True)
class Steps:
    """A recording in steps: all arrays are of its observations (n,)."""

    recording: Recording
    stack: int
    shift: int  # frames

    @cached_property
    def episode(self) -> NDArray[np.int64]:
        """From 0; the recording's own numbers need not be."""
        ids = self.recording.episode[:-1:SKIP]
        return np.cumsum(np.diff(ids, prepend=ids[:1]) != 0)

    def __len__(self) -> int:
        """The last observation needs a frame after it, to which its step leads."""
        return len(self.episode)

    def gaze(self, k: int) -> Gaze:
        """Pixels with gaze on the frames of observation `k` and those stacked with it."""
        newest = SKIP * np.arange(max(0, k - self.stack + 1), k + 1)
        frames = np.concatenate([newest, newest - 1])
        frames = frames[(frames >= 0) & (self.recording.episode[frames] == self._id(k))]
        rows = frames - self.shift
        samples = np.concatenate(
            [np.empty((0, 2)), *(self.recording.gaze[row] for row in rows if row >= 0)]
        )
        pixels = np.rint(samples)
        inside = np.all((pixels >= 0) & (pixels < (WIDTH, HEIGHT)), axis=1)
        places, times = np.unique(pixels[inside], axis=0, return_counts=True)
        return np.column_stack([places, times.clip(max=65535)]).astype(np.uint16)

    def reward(self, k: int) -> float:
        """The sum over the step's frames."""
        return float(self.recording.reward[SKIP * k : SKIP * (k + 1)].sum())

    def _id(self, k: int) -> int:
        return int(self.recording.episode[SKIP * k])


@dataclass(frozen=True)
class Part:
    """The first `count` observations of a trial. Picklable."""

    env: str
    config: Config
    trial: Trial
    index: int
    count: int
    pixels: int  # rows of `gaze`

    def run(self, folder: Path, progress: Callable[[int], None]) -> None:
        """Write the shards that are missing or damaged in `folder`."""
        write_stream(self.frames, folder, self.index, self.count, progress)

    def frames(self, start: int) -> Iterator[Frame]:
        """The observations from number `start` on. FoveaError for a damaged recording."""
        steps = read_steps(self.trial, self.config)
        screen = SCREENS[envs.rendering(self.env)["screen"]]
        known = envs.emulator_actions(self.env)
        numbers = {
            frame + 1
            for k in range(start, self.count)
            for frame in (max(SKIP * k - 1, 0), SKIP * k)
        }
        files = read_frames(self.trial, numbers, len(steps.recording))

        def pixels(frame: int) -> NDArray[np.uint8]:
            return decode(self.trial, frame + 1, files[frame + 1])

        for k in range(start, self.count):
            third, fourth = max(SKIP * k - 1, 0), SKIP * k
            if steps.recording.episode[third] != steps.recording.episode[fourth]:
                third = fourth
            gaze = np.zeros((self.pixels, 3), np.uint16)
            rows = steps.gaze(k)
            gaze[: len(rows)] = rows
            episode = int(steps.episode[k])
            yield Frame(
                image=screen.render(pixels(third), pixels(fourth)),
                action=nearest(int(steps.recording.action[fourth]), known),
                reward=steps.reward(k),
                terminated=bool(k + 1 < len(steps) and steps.episode[k + 1] != episode),
                truncated=False,
                episode=episode,
                step=k - int(np.searchsorted(steps.episode, episode)),
                info={"gaze": gaze},
            )


def streams(config: Config, env: str, count: int) -> list[Part]:
    """`count` observations of a game from the recordings of FOLDER.

    Raises FoveaError for other environments, where recordings are missing or damaged, and where
    they have fewer observations.
    """
    envs.check(env)
    suite, _, game = env.partition("?")[0].partition("/")
    if suite != "atari":
        raise FoveaError(
            f"source atari_head: {env} is not of Atari; name a game, as atari/Breakout"
        )
    if count < 1:
        raise FoveaError(f"count: {count}, must be at least 1")
    trials: list[Trial] = []
    shares: list[int] = []
    pixels = 1
    for trial in find_trials(game, config.trials):
        steps = read_steps(trial, config)
        share = min(count - sum(shares), len(steps))
        pixels = max([pixels, *(_checked(trial, k, len(steps.gaze(k))) for k in range(share))])
        if share:
            trials.append(trial)
            shares.append(share)
        if sum(shares) == count:
            break
    if sum(shares) < count:
        raise FoveaError(
            f"count: {count}, but the {len(trials)} recordings of {game} have {sum(shares)} "
            "observations, one of four frames; lower it, or download more trials"
        )
    return [
        Part(env, config, trial, index, share, pixels)
        for index, (trial, share) in enumerate(zip(trials, shares, strict=True))
    ]


def read_steps(trial: Trial, config: Config) -> Steps:
    """A trial's table in steps."""
    return Steps(read(trial), config.stack, int(config.reference_shift))


def nearest(action: int, known: tuple[int, ...]) -> int:
    """The index in `known` of an emulator's action: itself, or the one that presses most of the
    same and nothing else. Fire is given up first.
    """
    pressed = set(PRESSES[action])

    def same(index: int) -> float:
        presses = set(PRESSES[known[index]])
        return len(presses) - 0.5 * ("f" in presses) if presses <= pressed else -1.0

    return max(range(len(known)), key=same)


def _checked(trial: Trial, k: int, pixels: int) -> int:
    if pixels > MOST:
        raise FoveaError(
            f"{trial.name(TABLE)}: gaze is on {pixels} pixels in observation {k}, more than "
            f"{MOST}; lower `stack`, or leave trial {trial.number} out with `trials: […]`"
        )
    return pixels
