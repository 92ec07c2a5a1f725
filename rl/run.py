"""One seed's folder: weights, curve, log, checkpoints and failure, for any algorithm.

A seed's folder has `weights-<step>.safetensors` (the acting network), `curve.csv` (one line a
finished episode) and at the very end `metrics.json`, or `failed.json` if training diverged. Until
then `resume/` has the last two checkpoints: the state of every part of the loop, with all random
generators. On a CPU, a run that is killed at any moment and started again ends in the same bytes.
Every file is sealed (datasets/sealed.py): a damaged checkpoint is not used, and a finished seed
with a damaged file is trained again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from datasets.errors import FoveaError
from datasets.sealed import DamagedError, check_sealed, keep_if_sound, remove_sealed, write_sealed

LOG_EVERY = 100  # steps between points in TensorBoard
DONE, FAILED = "metrics.json", "failed.json"
STATES = "state-*.pt"  # of checkpoints
Part = tuple[Callable[[], Any], Callable[[Any], object]]  # returns its state; restores it


class DivergedError(FoveaError):
    """Training diverged: a value became NaN or infinite."""

    def __init__(self, what: str, step: int, seed: int, remedy: str) -> None:
        """`step` counts environment steps."""
        super().__init__(f"seed {seed}: {what} not finite at step {step}; {remedy}")
        self.step, self.seed = step, seed


class Run:
    """A seed's folder and its environment step."""

    def __init__(self, folder: Path, seed: int, logs: Path | None = None) -> None:
        """`logs` gets points for TensorBoard."""
        self.folder, self.resume, self.seed = folder, folder / "resume", seed
        self.step = self._before = 0  # now, and before the last `advance`
        self.episodes: list[tuple[float, ...]] = []  # step, return, length; and success if known
        self.parts: Mapping[str, Part] = {}
        self._losses: dict[str, Tensor] = {}
        self._logs = logs
        self._writer: SummaryWriter | None = None

    @property
    def finished(self) -> bool:
        """Whether the seed is trained to the end, and all its files are sound."""
        return is_done(self.folder, DONE)

    def begin(self, parts: Mapping[str, Part], device: torch.device) -> bool:
        """Restore the parts from the last sound checkpoint; returns whether there is one.

        A damaged checkpoint is skipped with a note; both are skipped if replay's rows are damaged.
        Raises FoveaError for a checkpoint of another run.
        """
        self.parts = parts
        for stray in self.folder.glob(".*.tmp"):  # of an interrupted write
            stray.unlink()
        state = self._sound_state()
        if state is not None:
            self._restore(state, device)
        else:
            shutil.rmtree(self.resume, ignore_errors=True)
            self.resume.mkdir(parents=True)
        if self._logs:
            self._writer = SummaryWriter(str(self._logs), purge_step=self.step + 1)
        return state is not None

    def advance(self, steps: int, infos: Mapping[str, Any], ended: NDArray[np.bool_]) -> None:
        """Count `steps` of all environments; those in `ended` (N,) ended an episode."""
        self._before, self.step = self.step, self.step + steps
        if not ended.any():
            return
        info = infos["final_info"]
        for row in np.flatnonzero(ended & info["game_over"]):  # not those that only lost a life
            score, length = float(info["game_return"][row]), int(info["game_length"][row])
            success = (int(info["game_success"][row]),) if "game_success" in info else ()
            self.episodes.append((self.step, score, length, *success))

    def count_from(self, step: int) -> None:
        """Make `is_due` count from `step` on, over several calls of `advance`."""
        self._before = step

    def is_due(self, every: int) -> bool:
        """Whether the last `advance` reached a multiple of `every` steps."""
        return self.step // every > self._before // every

    def log(self, scalars: Mapping[str, Tensor]) -> None:
        """Take an update's scalars, losses among them; few are read, since reading waits."""
        self._losses = {name: value for name, value in scalars.items() if name.endswith("loss")}
        if self._writer and self.is_due(LOG_EVERY):
            for name, value in scalars.items():
                self._writer.add_scalar(name, value.item(), self.step)

    def check_loss(self) -> None:
        """Raise DivergedError where a last loss is NaN or infinite."""
        for name, loss in self._losses.items():
            if not math.isfinite(loss.item()):
                self.fail(f"the {name.replace('_', ' ')} is", "lower learning_rate")

    def fail(self, what: str, remedy: str) -> NoReturn:
        """Record that `what` is not finite, delete the checkpoints, and raise DivergedError."""
        error = DivergedError(what, self.step, self.seed, remedy)
        self._write_curve()
        self._write_json(FAILED, {"error": str(error), "step": error.step})
        shutil.rmtree(self.resume)
        raise error

    def save_weights(self, policy: nn.Module) -> None:
        """Write the policy's weights, and the curve so far."""
        self.check_loss()
        weights = {k: v.cpu().contiguous() for k, v in policy.state_dict().items()}
        if not all(each.isfinite().all() for each in weights.values()):
            self.fail("the weights are", "lower learning_rate")  # the loss was of those before
        self._write(f"weights-{self.step:07d}.safetensors", to_safetensors(weights))
        self._write_curve()

    def checkpoint(self) -> None:
        """Write the state of all parts, from which training goes on bit for bit."""
        self.check_loss()
        state = {name: save() for name, (save, _) in self.parts.items()}
        state |= {"step": self.step, "episodes": self.episodes}
        state = _map(state, np.ndarray, torch.from_numpy)
        buffer = io.BytesIO()
        torch.save(_map(state, Tensor, torch.clone), buffer)  # a view would be saved with its base
        self._write(f"resume/{STATES}".replace("*", f"{self.step:012d}"), buffer.getvalue())
        for older in sorted(self.resume.glob(STATES))[:-2]:
            remove_sealed(older)

    def _sound_state(self) -> Path | None:
        """The last sound checkpoint, checked before any part is restored."""
        states = sorted(self.resume.glob(STATES), reverse=True)
        files = self.resume.glob("[!.]*") if states else []
        if not all([keep_if_sound(path) for path in sorted(files) if path not in states]):
            return None
        return next(filter(keep_if_sound, states), None)

    def _restore(self, path: Path, device: torch.device) -> None:
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            self.step, self.episodes = state["step"], list(state["episodes"])
            for name, (_, load) in self.parts.items():
                load(state[name])
        except FoveaError:  # names the file of replay's rows
            raise
        except Exception as error:  # torch alone raises EOFError, UnpicklingError, RuntimeError
            raise FoveaError(
                f"{path}: damaged checkpoint ({type(error).__name__}); delete {self.folder} to "
                "start this seed again"
            ) from error

    def finish(self, **metrics: object) -> None:
        """Record that the seed is done, and only then delete the checkpoints."""
        self.check_loss()
        last = [episode[1] for episode in self.episodes[-10:]]
        metrics |= {
            "steps": self.step,
            "games": len(self.episodes),
            "last_10_games_mean_return": sum(last) / len(last) if last else None,
        }
        if self.episodes and len(self.episodes[0]) > 3:
            successes = [episode[3] for episode in self.episodes[-100:]]
            metrics["last_100_games_success"] = float(np.mean(successes))
        self._write_json(DONE, metrics)
        shutil.rmtree(self.resume)

    def close(self) -> None:
        """Close TensorBoard's log."""
        if self._writer:
            self._writer.close()

    def _write_curve(self) -> None:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        columns = len(self.episodes[0]) if self.episodes else 3
        writer.writerow(["step", "return", "length", "success"][:columns])
        writer.writerows(self.episodes)
        self._write("curve.csv", lines.getvalue().encode())

    def _write_json(self, name: str, content: Mapping[str, object]) -> None:
        self._write(name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def _write(self, name: str, content: bytes) -> None:
        """Write a sealed file; all files of the folder are written here."""
        write_sealed(self.folder / name, content)


def is_done(folder: Path, *ends: str) -> bool:
    """Whether a seed has one of the files `ends`, which are the last ones of a training.

    If any of its files is damaged, the folder is emptied and a line says so.
    """
    if not any((folder / end).exists() for end in ends):
        return False
    shutil.rmtree(folder / "resume", ignore_errors=True)  # left by a kill at the very end
    try:
        check_sealed(folder)
    except DamagedError as error:
        print(f"note: {error}, so the seed is trained again", file=sys.stderr, flush=True)
        shutil.rmtree(folder)
        folder.mkdir()
        return False
    return True


class Stateful(Protocol):
    """An object with a state dict."""

    def state_dict(self) -> Mapping[str, Any]:
        """All of its state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        ...


def stateful(part: Stateful) -> Part:
    """An object with a state dict as a part of a run."""
    return part.state_dict, part.load_state_dict


def generator_part(generator: np.random.Generator) -> Part:
    """A numpy generator as a part of a run."""

    def load(state: Any) -> None:
        generator.bit_generator.state = state

    return lambda: generator.bit_generator.state, load


def environment_part(environment: SyncVectorEnv) -> Part:
    """Environments, each with its emulator or simulation, as a part of a run."""

    def load(states: Any) -> None:
        states = _map(states, Tensor, lambda value: value.cpu().numpy())
        for single, state in zip(environment.envs, states, strict=True):
            single.get_wrapper_attr("set_state")(state)

    return lambda: list(environment.call("get_state")), load


def _map(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """`value` with every `kind` in its dicts and lists converted: checkpoints contain tensors."""
    if isinstance(value, dict):
        return {key: _map(item, kind, convert) for key, item in value.items()}
    if isinstance(value, list):
        return [_map(item, kind, convert) for item in value]
    return convert(value) if isinstance(value, kind) else value
