"""Stage `evaluate`: policies -> full episodes. `python -m pipeline.evaluate NAME`.

Every checkpoint of every seed plays `games` full episodes, noise off, and so does the uniform
random policy (SPIRL, App. B.3; ViSaRL, Table I: 50 rollouts a seed). With `sample: true` actions
are sampled from the policy (Nikulin et al. 2019: 8,192 episodes a seed). An environment with tasks
also reports whether an episode succeeded at any of its steps. One episode of the best seed's last
checkpoint is recorded as a video, and as a sheet of pictures if the policy attends to parts of the
frame (SPIRL, Fig. 6).

With `attention_threshold: t` the last checkpoint of each seed also plays as many episodes with hard
attention, where weights below t times a head's largest are 0 (Mott et al. 2019, A.6). The ratio of
both mean returns has a bootstrap interval over seeds and episodes (their Table 5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.files import parse_json, read_json, write_atomic
from datasets.sealed import keep_if_sound, read_sealed, write_sealed
from pipeline.config.tables import Entry
from pipeline.parts.episodes import score_of
from pipeline.parts.policies import import_parts, paper_steps, trained_policy
from pipeline.parts.video import sheet, write_video
from pipeline.runtime.parallel import run_parallel
from pipeline.runtime.stage import Stage, main
from pretrain.frozen import read_header
from rl import play
from rl.policy import CONFIG, ENCODER, Policy, checkpoints, read_spec
from rl.statistics import ratio_interval

RANDOM = "random.json"
EPISODE_SEED = 1_000_000  # other than the training seeds


@dataclass(frozen=True)
class Play:
    """The episodes of one checkpoint, or of the random policy if that is None."""

    entry: Entry
    policies: Path
    checkpoint: tuple[int, int] | None  # seed and step
    result: Path
    threshold: float | None = None  # of hard attention
    gpu: ClassVar = True

    @property
    def reads(self) -> tuple[Path, ...]:
        """The artifact."""
        return (self.policies,)

    @property
    def writes(self) -> tuple[Path, ...]:
        """The scores."""
        return (self.result,)

    def __call__(self, progress: Callable[[int], None]) -> None:
        """Play the episodes and write the result."""
        keys = self.entry.keys
        if self.checkpoint is None:
            scores = play.evaluate_random(
                env_of(self.entry), episodes=keys.games, seed=EPISODE_SEED, progress=progress
            )
        else:
            policy = _evaluated(self.entry, self.policies, *self.checkpoint)
            if self.threshold is not None:
                policy.agent.core.threshold = self.threshold
            scores = play.evaluate(
                policy,
                episodes=keys.games,
                seed=EPISODE_SEED,
                epsilon=keys.epsilon,
                progress=progress,
                sample=keys.sample,
            )
        write_sealed(self.result, (json.dumps(scores) + "\n").encode())


def env_of(entry: Entry) -> str:
    """The environment of a policy's evaluation."""
    return str(entry.keys.evaluate_env or entry.keys.env)


def _evaluated(entry: Entry, policies: Path, seed: int, step: int) -> Policy:
    """The policy of a checkpoint, in the environment of the evaluation."""
    policy = trained_policy(policies, seed, step)
    return replace(policy, spec=replace(policy.spec, env=env_of(entry)))


def run(stage: Stage) -> dict[str, Any]:
    """Evaluate every checkpoint of every seed and the random policy; record one episode.

    Results are stored by the digest of their weights, so that with more seeds only the new ones are
    played.
    """
    policies = stage.inputs["policy"].folder
    plays = [Play(stage.entry, policies, None, stage.folder / RANDOM)]
    seeds = []
    for folder in sorted(policies.glob("seed-*"), key=lambda path: int(path.name[5:])):
        failed, seed = folder / "failed.json", int(folder.name[5:])
        # A failed seed is evaluated by the checkpoints that it reached.
        results = {step: _result_path(stage, weights) for step, weights in checkpoints(folder)}
        plays += [Play(stage.entry, policies, (seed, step), results[step]) for step in results]
        reason = read_json(failed)["error"] if failed.exists() else None
        seeds.append({"seed": seed, "failed": reason, "results": results})
        threshold = stage.entry.keys.attention_threshold
        if results and threshold is not None:
            last = max(results)
            hard = results[last].with_suffix(".hard.json")
            plays.append(Play(stage.entry, policies, (seed, last), hard, threshold))
            seeds[-1]["hard"] = hard
    waiting = [play for play in plays if not keep_if_sound(play.result)]
    import_parts(read_spec(policies), policies / ENCODER)
    run_parallel(
        waiting,
        label=f"evaluate {stage.entry.name}",
        total=stage.entry.keys.games * len(waiting),
        unit="episodes",
    )
    evaluation = _evaluation(stage, seeds)
    write_atomic(stage.out / "evaluation.json", (json.dumps(evaluation, indent=1) + "\n").encode())
    return _summary(evaluation) | _video(stage, evaluation)


def _result_path(stage: Stage, weights: Path) -> Path:
    """The file for the scores of these weights on this encoder."""
    policy = stage.inputs["policy"]
    own = weights.relative_to(policy.folder).as_posix()
    files = [own, *(name for name in policy.files if name.partition("/")[0] in (CONFIG, ENCODER))]
    digest = sha256("".join(policy.files[name] for name in files).encode()).hexdigest()
    return stage.folder / f"{digest[:32]}.json"


def _evaluation(stage: Stage, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    keys = stage.entry.keys
    for seed in seeds:
        seed["checkpoints"] = [
            {"step": step, **parse_json(read_sealed(path))}
            for step, path in seed.pop("results").items()
        ]
        if "hard" in seed:
            seed["hard"] = parse_json(read_sealed(seed["hard"]))
    evaluation = {
        "policy": stage.entry.name,
        "env": env_of(stage.entry),
        "encoder": keys.encoder,
        "agent": keys.agent,
        "features": stage.entry.features,
        "steps": stage.entry.config.steps,
        "paper_steps": paper_steps(keys.agent),
        "games": keys.games,
        "epsilon": keys.epsilon,
        "sample": keys.sample,
        "seeds": seeds,
        "random": parse_json(read_sealed(stage.folder / RANDOM)),
    }
    if keys.evaluate_env is not None:
        evaluation["evaluate_env"] = keys.evaluate_env
    if keys.attention_threshold is not None:
        evaluation["attention_threshold"] = keys.attention_threshold
    return evaluation


def _last_mean(seed: dict[str, Any], random: dict[str, Any], of: str) -> float:
    """A seed's mean score at the end of training."""
    return float(np.mean(score_of(seed["checkpoints"], random)[of]))


def _summary(evaluation: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for what, name in (("returns", "mean_return"), ("successes", "success")):
        if what in evaluation["random"]:
            random = evaluation["random"]
            means = [_last_mean(seed, random, what) for seed in evaluation["seeds"]]
            summary[name] = float(np.mean(means))
            summary[f"random_{name}"] = float(np.mean(random[what]))
    summary |= hard_ratio(evaluation["seeds"])
    failed = sum(seed["failed"] is not None for seed in evaluation["seeds"])
    points = [point for seed in evaluation["seeds"] for point in seed["checkpoints"]]
    unstable = sum(scores.get("unstable", 0) for scores in [evaluation["random"], *points])
    return summary | {"failed_seeds": failed} | ({"unstable_games": unstable} if unstable else {})


def hard_ratio(seeds: list[dict[str, Any]]) -> dict[str, float]:
    """The mean return with hard attention as a share of that without, and its 95 % interval, over
    the seeds that have weights. Empty without any, or where a ratio has no meaning.
    """
    pairs = [(each["hard"], each["checkpoints"][-1]) for each in seeds if "hard" in each]
    if not pairs:
        return {}
    hard, soft = (
        [np.array(one["returns"], np.float64) for one in side] for side in zip(*pairs, strict=True)
    )
    low, high = ratio_interval(hard, soft)
    if math.isnan(low):
        return {}
    ratio = np.mean([one.mean() for one in hard]) / np.mean([one.mean() for one in soft])
    return {"hard_ratio": float(ratio), "hard_ratio_low": low, "hard_ratio_high": high}


def _video(stage: Stage, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Record the first evaluation episode of the seed with the best last checkpoint."""
    candidates = [seed for seed in evaluation["seeds"] if seed["checkpoints"]]
    if not candidates:
        return {}
    best = max(candidates, key=lambda seed: _last_mean(seed, evaluation["random"], "returns"))
    policies, seed = stage.inputs["policy"].folder, best["seed"]
    step = best["checkpoints"][-1]["step"]
    policy = _evaluated(stage.entry, policies, seed, step)
    keys = stage.entry.keys
    episode = play.record(policy, seed=EPISODE_SEED, epsilon=keys.epsilon, sample=keys.sample)
    patch = read_header(policies / ENCODER)["config"].get("patch", 1)  # pixels have no patches
    write_video(stage.out / "video.mp4", episode, patch=patch)
    if episode[0].attention is not None or episode[0].attends:
        sheet(episode, patch=patch, salient=_salient(policy)).save(stage.out / "attention.png")
    return {"video_seed": seed, "video_step": step, "video_shows": _marks(episode[0])}


def _marks(frame: play.EpisodeFrame) -> str | None:
    """The marks in the video: the selected patches, the policy's attention as a map, the encoder's
    saliency map, or none.
    """
    if frame.selected is not None:
        return "patches"
    if frame.attends:
        return "attention"
    return "saliency" if frame.saliency is not None else None


def _salient(policy: Policy) -> Callable[[NDArray[np.uint8]], list[int]] | None:
    """A function from an image (H, W, 3) to its salient patches, if the encoder selects any."""
    encoder, device = policy.encoder, policy.agent.device
    if not encoder.selects:
        return None
    return lambda image: (
        encoder.salient(torch.from_numpy(image).permute(2, 0, 1)[None].to(device)) or []
    )


if __name__ == "__main__":
    main(
        "evaluate",
        "policies",
        run,
        publish_as="evaluations",
        inputs=lambda entry: {"policy": entry.label},
        without=frozenset({"seeds", "checkpoint_every"}),
        more_of=frozenset({"policy"}),
    )
