"""One seed's training: everything that the rest of it depends on, so that a kill loses nothing.

All randomness is in generators that a checkpoint keeps, beside the agent, the replay's rows, the
emulator and the frame stack: a run that is killed anywhere and started again ends with the same
bytes, on CPU.

What a seed's folder holds: `weights-<step>.safetensors` (the acting network), `curve.csv` (one line
a finished game) and at the very end `metrics.json`, or `failed.json` where it diverged. Until then
`resume/` has the last checkpoint.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium.spaces import Discrete
from gymnasium.vector import SyncVectorEnv
from safetensors.torch import save as to_safetensors
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from datasets.errors import FoveaError, UnstableError
from datasets.files import write_atomic
from pretrain.encoder import Obs
from rl.agent import Batch, State
from rl.features import Images, Infos, encode, example_of
from rl.play import Action, Policy, action_count, draw
from rl.replay import Replay

LOG_EVERY = 100  # steps between points in TensorBoard


class DivergedError(FoveaError):
    """A number that training lives on is not finite any more."""

    def __init__(self, what: str, step: int, seed: int, remedy: str) -> None:
        """`step` counts environment steps."""
        super().__init__(f"seed {seed}: {what} not finite at step {step}; {remedy}")
        self.step, self.seed = step, seed


@dataclass(frozen=True)
class Seed:
    """A seed to train: a fresh policy, the folder for what comes of it, and two more on request.

    `logs` gets points for TensorBoard. The file `actions` gets every action taken (steps, ...), the
    rewards (steps,) and the steps at which games ended: with those and the seed an environment goes
    the same way again, and shows whether it does.
    """

    policy: Policy
    folder: Path
    logs: Path | None = None
    actions: Path | None = None


class Run:
    """The state of a seed's training. `obs`, `state` and `first` are what it acts on next."""

    def __init__(self, seed: Seed, environment: SyncVectorEnv) -> None:
        self.policy, self.agent = seed.policy, seed.policy.agent
        self.config = self.agent.config
        self.environment = environment
        self.space = environment.single_action_space
        self.folder, self.resume = seed.folder, seed.folder / "resume"
        self.obs = example_of(self.policy.encoder, self.agent.device)
        self.replay = Replay(
            self.obs,
            # Truncated games take a row more each, so at the very end the oldest rows may be gone.
            capacity=max(
                min(self.config.replay_capacity, self.config.steps),
                self.config.n_step + self.config.stack + 1,
            ),
            stack=self.config.stack,
            steps=self.config.n_step,
            gamma=self.config.gamma,
            priority_exponent=self.config.priority_exponent,
            seed=self.policy.seed,
            device=self.agent.device,
            action_size=None if isinstance(self.space, Discrete) else action_count(self.space),
        )
        self.random = np.random.default_rng([self.policy.seed, 1])  # [seed, 0] is the environment's
        self.state: State | None = None
        self.first = torch.ones(1, dtype=torch.bool, device=self.agent.device)
        self.loss: Tensor | None = None
        self.games: list[tuple[float, ...]] = []  # step, return, length; and success if told
        # Filled only if to be kept: the actions, and the rewards as the environment gave them.
        self.actions, self.taken, self.rewards = seed.actions, list[Action](), list[float]()
        self.step = 0
        self.logs, self.log = seed.logs, _Log(None, 0)

    def begin(self) -> None:
        """Go on from the last checkpoint, or start the first game."""
        for stray in self.folder.glob(".*.tmp"):  # a write that was cut short
            stray.unlink()
        if (self.resume / "state.pt").exists():
            self._restore()
        else:
            shutil.rmtree(self.resume, ignore_errors=True)
            self.resume.mkdir(parents=True)
            self.obs = self._encode(*self.environment.reset())
        self.log = _Log(self.logs, self.step)

    def close(self) -> None:
        """Close the environment and the log."""
        self.log.close()
        self.environment.close()

    def check(self, action: Action) -> None:
        """Raise DivergedError where the last loss, the features or the action are no numbers."""
        self._check_loss()
        if not all(value.isfinite().all() for value in self.obs.values()):
            self._give_up("the encoder's features are", "pretrain the encoder again")
        if not np.isfinite(action).all():  # a loss may be one whose gradient is not
            self._give_up("the action is", "lower learning_rate")

    def act(self, action: Action) -> tuple[Images, Infos]:
        """One environment step; what it shows is to be encoded and becomes `obs`.

        The action is a random one instead while learning has not started. Raises DivergedError
        where the simulation becomes unstable.
        """
        if self.step < self.config.learn_start:
            action = draw(self.space, self.random)
        try:
            images, rewards, terminated, truncated, infos = self.environment.step(action[None])
        except UnstableError:
            told = "MUJOCO_LOG.TXT says what in it; another seed goes another way"
            self._give_up("the simulation's state is", told)
        over, cut = bool(terminated[0]), bool(truncated[0])
        last = self._encode(infos["final_obs"][0][None], infos["final_info"]) if cut else None
        reward = np.sign(rewards[0]) if self.config.rewards == "sign" else rewards[0]
        self.replay.add(self.obs, action, float(reward), terminated=over, truncated=cut, final=last)
        if self.actions:
            self.taken.append(action)
            self.rewards.append(float(rewards[0]))
        self.first = torch.full_like(self.first, over or cut)
        self.step += 1
        if over or cut:
            self._note_game(infos["final_info"])
        return images, infos

    @property
    def due(self) -> bool:
        """Whether an update comes after this step."""
        since = self.step - self.config.learn_start
        return since > 0 and since % self.config.update_every == 0

    def batch(self) -> Batch:
        """What to learn from now."""
        start = self.config.priority_weight
        beta = start + (1 - start) * self.step / self.config.steps
        return self.replay.sample(self.config.batch_size, beta)

    def learned(self, batch: Batch, scalars: dict[str, Tensor]) -> None:
        """What the update on a batch gave."""
        if "priority" in scalars:
            self.replay.reprioritise(batch.index, scalars.pop("priority"))
        self.loss = scalars["loss"]
        self.log.write(self.step, scalars)

    def _encode(self, images: Images, infos: Infos) -> Obs:
        policy = self.policy
        return encode(policy.encoder, policy.env, images, infos, self.agent.device)

    def _note_game(self, info: dict[str, Any]) -> None:
        if info["game_over"][0]:  # and not only a life lost
            score, length = float(info["game_return"][0]), int(info["game_length"][0])
            success = (int(info["game_success"][0]),) if "game_success" in info else ()
            self.games.append((self.step, score, length, *success))

    def _check_loss(self) -> None:
        if self.loss is not None and not math.isfinite(self.loss.item()):
            self._give_up("the loss is", "lower learning_rate")

    def _give_up(self, what: str, remedy: str) -> NoReturn:
        """Say so at once: others that train together go on, and may be killed before they end."""
        error = DivergedError(what, self.step, self.policy.seed, remedy)
        self._write_curve()
        failed = {"error": str(error), "step": error.step}
        write_atomic(self.folder / "failed.json", (json.dumps(failed) + "\n").encode())
        shutil.rmtree(self.resume)
        raise error

    def keep_weights(self) -> None:
        """Write what the policy acts with now, and the curve so far."""
        self._check_loss()
        weights = {k: v.cpu().contiguous() for k, v in self.agent.policy.state_dict().items()}
        path = self.folder / f"weights-{self.step:07d}.safetensors"
        write_atomic(path, to_safetensors(weights))
        self._write_curve()

    def _write_curve(self) -> None:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        told = len(self.games[0]) if self.games else 3
        writer.writerow(["step", "return", "length", "success"][:told])
        writer.writerows(self.games)
        write_atomic(self.folder / "curve.csv", lines.getvalue().encode())

    def checkpoint(self) -> None:
        """Write all that is needed to go on from here bit for bit: rows first, then the state."""
        self._check_loss()
        emulator = self.environment.call("get_state")[0]
        state = {
            "step": self.step,
            "agent": self.agent.state_dict(),
            "replay": self.replay.save(self.resume),
            "environment": _map(emulator, np.ndarray, torch.from_numpy),
            "random": self.random.bit_generator.state,
            "obs": self.obs,
            "state": self.state,
            "first": self.first,
            "games": self.games,
            "taken": self._taken(),
            "rewards": self._rewards(),
        }
        buffer = io.BytesIO()
        torch.save(_map(state, Tensor, torch.clone), buffer)  # of a view all of its base is saved
        write_atomic(self.resume / "state.pt", buffer.getvalue())

    def _taken(self) -> Tensor:
        """Actions (steps, ...)."""
        return torch.from_numpy(np.array(self.taken))

    def _rewards(self) -> Tensor:
        """Rewards (steps,)."""
        return torch.tensor(self.rewards, dtype=torch.float64)

    def _restore(self) -> None:
        path = self.resume / "state.pt"
        try:
            state = torch.load(path, map_location=self.agent.device, weights_only=True)
            self.step, self.games = state["step"], state["games"]
            self.taken = list(state["taken"].cpu().numpy())
            self.rewards = state["rewards"].tolist()
            self.obs, self.state, self.first = state["obs"], state["state"], state["first"]
            self.agent.load_state_dict(state["agent"])
            self.replay.load(self.resume, state["replay"])
            self.random.bit_generator.state = state["random"]
            emulator = _map(state["environment"], Tensor, lambda value: value.cpu().numpy())
        except FoveaError:  # of the replay's rows, whose file it names
            raise
        except Exception as error:  # torch alone has EOFError, UnpicklingError, RuntimeError
            raise FoveaError(
                f"{path}: damaged checkpoint ({type(error).__name__}); delete {self.folder} to "
                "start this seed again"
            ) from error
        self.environment.call("set_state", emulator)

    def finish(self) -> None:
        """Say that the seed is done, and only then drop what resuming needed."""
        self._check_loss()
        last = [game[1] for game in self.games[-10:]]
        metrics: dict[str, Any] = {
            "steps": self.step,
            "updates": max(0, self.step - self.config.learn_start) // self.config.update_every,
            "games": len(self.games),
            "last_10_games_mean_return": sum(last) / len(last) if last else None,
            "parameters": sum(p.numel() for p in self.agent.policy.parameters()),
        }
        if self.games and len(self.games[0]) > 3:
            metrics["last_100_games_success"] = float(np.mean([g[3] for g in self.games[-100:]]))
        if self.actions:
            ends = torch.tensor([game[0] for game in self.games], dtype=torch.int64)
            learned = {"action": self._taken(), "reward": self._rewards(), "end": ends}
            write_atomic(self.actions, to_safetensors(learned))
        text = json.dumps(metrics, indent=1, sort_keys=True) + "\n"
        write_atomic(self.folder / "metrics.json", text.encode())
        shutil.rmtree(self.resume)


class _Log:
    """Points for TensorBoard, or nothing where no folder is given."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=step + 1) if folder else None

    def write(self, step: int, scalars: dict[str, Tensor]) -> None:
        """Every LOG_EVERY steps: reading a scalar waits for the device."""
        if self.writer and step % LOG_EVERY == 0:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value.item(), step)

    def close(self) -> None:
        if self.writer:
            self.writer.close()


def _map(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """`value` with every `kind` in its dicts converted: checkpoints hold tensors, not arrays."""
    if isinstance(value, dict):
        return {key: _map(item, kind, convert) for key, item in value.items()}
    return convert(value) if isinstance(value, kind) else value
