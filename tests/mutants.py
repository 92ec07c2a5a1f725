"""`python -m tests.mutants`: plants faults, one at a time; each must turn a test red.

Works on a temporary copy of the tree. First the named tests must pass there as it is; then each
fault replaces one piece of text and its test runs again. Prints a table; exits with 1 if a fault
survives, if its text is gone, or if the test breaks down instead of failing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("datasets", "pretrain", "rl", "pipeline", "tests")
LIMIT = 300  # seconds for one fault's test


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where, and the test that must notice."""

    name: str
    file: str
    old: str
    new: str
    test: str  # file, or file::test


FAULTS = [
    Fault(
        "a gradient of weights with strides of its own",
        "pretrain/modules/linear.py",
        "gradient.t()).t().contiguous()",
        "gradient.t()).t()",
        "tests/pretrain/test_linear.py",
    ),
    Fault(
        "training that never multiplies in bfloat16",
        "pretrain/trainer.py",
        "fast_linear(self.device, half=True)",
        "fast_linear(self.device, half=False)",
        "tests/pretrain/test_trainer.py::test_training_may_multiply_in_bfloat16",
    ),
    Fault(
        "frames labelled again that were labelled before an interruption",
        "pipeline/label.py",
        "if not path.exists():",
        "if path:",
        "tests/pipeline/test_labelled.py::test_what_is_labelled_already_is_not_labelled_again",
    ),
    Fault(
        "games of a retrained seed taken for those of its new weights",
        "pipeline/evaluate.py",
        'f"{digest[:32]}.json"',
        'f"{weights.parent.name}-{weights.stem}-{len(digest)}.json"',
        "tests/pipeline/test_evaluate.py",
    ),
    Fault(
        "errors that are no numbers remembered and shared",
        "pretrain/spirl/error_cache.py",
        "if np.isfinite(found[of_it]).all():",
        "if len(found):",
        "tests/pretrain/test_error_log.py::test_errors_that_are_no_numbers_are_not_remembered",
    ),
    Fault(
        "checksums of errors that do not tell the weights",
        "pretrain/spirl/error_log.py",
        "digest_size=16, key=stamp)",
        "digest_size=16)",
        "tests/pretrain/test_error_log.py::test_errors_of_other_weights_are_not_believed",
    ),
    Fault(
        "a full file of errors that loses its numbers where there is no room for the next",
        "pretrain/spirl/error_log.py",
        "shown = {} if begin else self._shown",
        "shown = self._shown = {} if begin else self._shown",
        "tests/pretrain/test_error_log.py::test_a_full_file_that_finds_no_room_for_the_next",
    ),
    Fault(
        "an unstable simulation goes on as if nothing had happened",
        "datasets/envs/metaworld.py",
        "self._task.data.warning.number[UNSTABLE].any()",
        "False",
        "tests/datasets/test_metaworld_faults.py",
    ),
    Fault(
        "weights that were kept stand in for others",
        "pipeline/commands/pretrained.py",
        'if kept["entry"] != stage.entry.resolved():',
        "if False:",
        "tests/pipeline/test_pretrained.py",
    ),
    Fault(
        "a gradient handed to the fused Adam with strides of its own",
        "rl/layers.py",
        "gradient.contiguous()",
        "gradient",
        "tests/contracts/test_agents.py::"
        "test_an_agent_learns_as_with_adam_one_weight_after_the_other",
    ),
    Fault(
        "neighbours side by side instead of two pixels apart",
        "pretrain/modules/pixel_attention.py",
        "(DILATION * row, DILATION * column)",
        "(row, column)",
        "tests/pretrain/test_pixel_attention.py",
    ),
    Fault(
        "recall counted over all pixels",
        "pretrain/metrics/saliency.py",
        "hits / wanted.sum((1, 2))[:, None]",
        "hits / wanted[0].size",
        "tests/pretrain/test_saliency_metrics.py",
    ),
    Fault(
        "frames mirrored without their maps",
        "pretrain/saliency/picanet.py",
        "image, target = both[:, :3], both[:, 3:]",
        "image = both[:, :3]",
        "tests/pretrain/test_picanet.py::test_the_loss_weighs_scales_against_maxima_of_the_map",
    ),
    Fault(
        "what judges a predictor also teaches it",
        "pipeline/fit.py",
        "np.sort(order[judges:] if count > 1 else order)",
        "np.sort(order)",
        "tests/pipeline/test_fit.py::test_four_fifths_teach_and_one_fifth_judges",
    ),
    Fault(
        "terminated and truncated swapped",
        "rl/returns.py",
        "(terminated & counts)",
        "(truncated & counts)",
        "tests/rl/test_returns.py",
    ),
    Fault(
        "n-step return runs across the episode's end",
        "rl/returns.py",
        "counts = (ended.cumsum(1) - ended) == 0",
        "counts = torch.ones_like(terminated)",
        "tests/rl/test_returns.py",
    ),
    Fault(
        "C51 projection loses what lies beyond the ends",
        "rl/returns.py",
        "shifted = torch.minimum(torch.maximum(shifted, low), high)",
        "shifted = shifted + 0 * low",
        "tests/rl/test_returns.py",
    ),
    Fault(
        "next state one row early",
        "rl/replay.py",
        "index + length, index)",
        "index + length - 1, index)",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "stack reaches into the episode before",
        "rl/replay.py",
        "[:, None] >= back",
        "[:, None] >= 0 * back",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "truncated episode bootstraps from the wrong frame",
        "rl/replay.py",
        "self._write(final, 0,",
        "self._write(obs, 0,",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "rows drawn whose stack the ring has overwritten",
        "rl/replay.py",
        "for broken in range(self.stack):",
        "for broken in range(1):",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "importance weights inverted",
        "rl/replay.py",
        "self._priority[index] ** -beta",
        "self._priority[index] ** beta",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "priorities without their exponent",
        "rl/replay.py",
        "clamp_min(1e-6) ** self.priority_exponent",
        "clamp_min(1e-6)",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "sigma without gradient",
        "rl/layers.py",
        "self.weight_sigma, torch.outer(",
        "self.weight_sigma.detach(), torch.outer(",
        "tests/rl/test_layers.py",
    ),
    Fault(
        "noise left on in evaluation",
        "rl/agents/rainbow.py",
        "self.policy.train(explore)",
        "self.policy.train()",
        "tests/rl/test_rainbow.py",
    ),
    Fault(
        "target network never copied",
        "rl/agents/rainbow.py",
        "if self.updates % self.config.target_every == 0:",
        "if self.updates < 0:",
        "tests/rl/test_rainbow.py",
    ),
    Fault(
        "double Q picks with the target network",
        "rl/agents/rainbow.py",
        "self.policy.greedy(self.policy(batch.next_obs)[0])",
        "self.policy.greedy(self.target(batch.next_obs)[0])",
        "tests/rl/test_rainbow.py",
    ),
    Fault(
        "pad mask flipped",
        "rl/nets/tokens.py",
        "masked_fill(~mask[:, None]",
        "masked_fill(mask[:, None]",
        "tests/rl/test_nets.py",
    ),
    Fault(
        "rewards not clipped",
        "rl/run.py",
        "np.sign(rewards[0]) if",
        "rewards[0] if",
        "tests/rl/test_loops.py::test_frames_are_encoded_once_and_rewards_reach_replay_as_signs",
    ),
    Fault(
        "a resumed run draws other noise",
        "rl/agents/rainbow.py",
        'self.generator.set_state(state["generator"].cpu())',
        "pass",
        "tests/rl/test_loops.py::test_a_run_stopped_after_any_step_ends_in_the_same_bytes",
    ),
    Fault(
        "a squashed action's density is the Gaussian's",
        "rl/agents/sac.py",
        "return (gaussian - shrunk).sum(-1)",
        "return (gaussian - 0 * shrunk).sum(-1)",
        "tests/rl/test_sac.py",
    ),
    Fault(
        "targets take on all but a share of the online critics",
        "rl/agents/sac.py",
        "online, self.config.tau",
        "online, 1 - self.config.tau",
        "tests/rl/test_sac.py",
    ),
    Fault(
        "the temperature goes the wrong way",
        "rl/agents/sac.py",
        "(entropy - self.target_entropy)",
        "(self.target_entropy - entropy)",
        "tests/rl/test_sac.py",
    ),
    Fault(
        "the larger of two critics is believed",
        "rl/agents/sac.py",
        "self.target(features, action).amin(0)",
        "self.target(features, action).amax(0)",
        "tests/rl/test_sac.py",
    ),
    Fault(
        "rows drawn uniformly that may not be",
        "rl/replay.py",
        "while (wrong := self._priority[index] == 0).any():",
        "while (wrong := self._priority[index] < 0).any():",
        "tests/rl/test_replay.py",
    ),
    Fault(
        "a recorded frame is drawn after its step",
        "datasets/sources/replay.py",
        "if now == number else None",
        "if now == number + 1 else None",
        "tests/datasets/test_replay_source.py",
    ),
    Fault(
        "positions transposed",
        "pretrain/modules/vit.py",
        "torch.cat([column, row], dim=1)",
        "torch.cat([row, column], dim=1)",
        "tests/pretrain/test_vit.py",
    ),
    Fault(
        "centres of a batch drawn from its first frame's neighbours",
        "pretrain/spirl/error_map.py",
        "tokens[index + (chunk - centre)[:, None]]",
        "tokens[index]",
        "tests/pretrain/test_memory.py::test_equals_the_error_map",
    ),
    Fault(
        "a player frozen on the last life plays on",
        "datasets/envs/atari.py",
        "bool(self._ale.game_over()) or frozen",
        "bool(self._ale.game_over())",
        "tests/datasets/test_atari.py::test_a_player_frozen_on_the_last_life_ends_the_game",
    ),
    Fault(
        "a centre sees itself",
        "pretrain/spirl/error_map.py",
        "(column[:, None] - column).abs()) == 1",
        "(column[:, None] - column).abs()) <= 1",
        "tests/pretrain/test_error_map.py",
    ),
    Fault(
        "selection keeps the smallest errors",
        "pretrain/spirl/select.py",
        "argsort(dim=1, descending=True, stable=True)",
        "argsort(dim=1, descending=False, stable=True)",
        "tests/pretrain/test_select.py",
    ),
    Fault(
        "loss on the wrong patches",
        "pretrain/encoders/mae.py",
        "F.mse_loss(drawn.float(), normalise(patches))",
        "F.mse_loss(drawn.float(), normalise(patches).flip(1))",
        "tests/pretrain/test_trainer.py::test_lightning_step_equals_a_plain_loop",
    ),
    Fault(
        "shards carry the time they were written",
        "datasets/archive.py",
        "            entry.size = len(data)\n",
        "            entry.size = len(data)\n            entry.mtime = id(entry) // 8 % 10**9\n",
        "tests/datasets/test_shards.py",
    ),
    Fault(
        "only the last of two frames is shown",
        "datasets/envs/atari.py",
        "np.maximum(third, fourth, out=third)",
        "fourth",
        "tests/datasets/test_atari.py",
    ),
    Fault(
        "clicks are taken from any origin",
        "datasets/annotation/server.py",
        'request.headers.get("Origin") != origin',
        "False",
        "tests/datasets/test_click_server.py",
    ),
    Fault(
        "the click server goes by any name",
        "datasets/annotation/server.py",
        'request.headers.getall("Host", []) != [host]',
        "False",
        "tests/datasets/test_click_server.py",
    ),
    Fault(
        "the click server needs no token",
        "datasets/annotation/server.py",
        "not hmac.compare_digest(told, token.encode())",
        "False",
        "tests/datasets/test_click_server.py",
    ),
    Fault(
        "a second tab undoes the clicks of the first",
        "datasets/annotation/click_file.py",
        "if now != before:",
        "if False:",
        "tests/datasets/test_click_file.py",
    ),
    Fault(
        "two processes change a click file at once",
        "datasets/annotation/click_file.py",
        "fcntl.flock(lock, fcntl.LOCK_EX)",
        "pass",
        "tests/datasets/test_click_file.py",
    ),
    Fault(
        "clicks on other frames are taken",
        "datasets/annotation/click_file.py",
        "if clicked.sha256 != here:",
        "if False:",
        "tests/datasets/test_click_file.py",
    ),
    Fault(
        "points outside of the picture are clicked on",
        "datasets/annotation/simulated.py",
        "np.all((points >= 0) & (points < CANVAS), axis=-1)",
        "np.all(points < 1e9, axis=-1)",
        "tests/datasets/test_annotation.py",
    ),
    Fault(
        "the page says saved before it is",
        "datasets/annotation/page.html",
        'waits ? "Saving" : "Saved"',
        '"Saved"',
        "tests/pipeline/test_clicks.py::test_a_server_that_pauses_gets_every_click_in_the_end",
    ),
    Fault(
        "a probe's frames held out one by one",
        "pretrain/metrics/probe.py",
        "    known = np.unique(episodes)\n",
        "    episodes = known = np.arange(len(episodes))\n",
        "tests/pretrain/test_probe.py",
    ),
    Fault(
        "a probe's features centred by frames held out",
        "pretrain/metrics/probe.py",
        "mean = self._products[:, fitted].mean(1)",
        "mean = self._products.mean(1)",
        "tests/pretrain/test_probe.py",
    ),
    Fault(
        "MultiMAE's decoder adds the query",
        "pretrain/modules/multimodal_vit.py",
        "x = self._attend(asked[place], self.norm_context(context))",
        "x = asked[place] + self._attend(asked[place], self.norm_context(context))",
        "tests/pretrain/test_multimae.py",
    ),
    Fault(
        "MultiMAE's decoder does not see the global token",
        "pretrain/modules/multimodal_vit.py",
        "context = torch.cat([seen, context[:, -1:]], dim=1)",
        "context = seen",
        "tests/pretrain/test_multimae.py",
    ),
    Fault(
        "what is not salient weighs most",
        "pretrain/encoders/multimae.py",
        "error / (1.05 - target)",
        "error * (1.05 - target)",
        "tests/pretrain/test_multimae.py",
    ),
    Fault(
        "every modality is seen alike",
        "pretrain/transforms/token_masking.py",
        "rng.dirichlet(np.ones(modalities), batch)",
        "np.full((batch, modalities), 1 / modalities)",
        "tests/pretrain/test_budgets.py",
    ),
    Fault(
        "the map as a channel is of 0 to 1",
        "pretrain/encoders/channels.py",
        "(saliency * 255).round()",
        "saliency.round()",
        "tests/pretrain/test_channels.py",
    ),
    Fault(
        "clicks meant for the tip fall on the object",
        "datasets/annotation/simulated.py",
        "SHARES = (0.45, 0.4, 0.15)",
        "SHARES = (0.4, 0.45, 0.15)",
        "tests/datasets/test_annotation.py",
    ),
    Fault(
        "half of what is salient does not count",
        "pretrain/metrics/saliency.py",
        "SALIENT = 128",
        "SALIENT = 192",
        "tests/pretrain/test_saliency_metrics.py",
    ),
    Fault(
        "one degree of freedom too many",
        "rl/statistics.py",
        "parts = [(side.var(ddof=1) / len(side), len(side) - 1)",
        "parts = [(side.var(ddof=1) / len(side), len(side))",
        "tests/rl/test_statistics.py",
    ),
    Fault(
        "what DVC made read-only is copied with its mode",
        "pipeline/label.py",
        "shutil.copyfile(by.folder",
        "shutil.copy(by.folder",
        "tests/pipeline/test_resume.py::test_what_dvc_made_read_only_can_be_copied_twice",
    ),
]


def run(tree: Path, tests: list[str]) -> int:
    """Exit status of pytest in `tree`: 0 all passed, 1 some failed, else it broke down."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Without bytecode files: they are told apart by size and second, too coarse for these edits.
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return 1  # a fault that hangs is noticed too
    if done.returncode > 1:
        print(done.stdout[-2_000:], done.stderr[-2_000:], file=sys.stderr)
    return done.returncode


def plant(tree: Path, fault: Fault) -> str:
    """What became of one fault: "caught", "SURVIVED", "TEXT GONE" or "BROKEN"."""
    path = tree / fault.file
    text = path.read_text() if path.exists() else ""
    if text.count(fault.old) != 1:
        return "TEXT GONE"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        return {0: "SURVIVED", 1: "caught"}.get(run(tree, [fault.test]), "BROKEN")
    finally:
        path.write_text(text)


def main() -> int:
    """Plant every fault, or those whose names contain an argument; 0 if all were caught."""
    chosen = [f for f in FAULTS if all(word in f.name for word in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in PACKAGES:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, tree)
        if run(tree, sorted({fault.test for fault in chosen})) != 0:
            print("The tests fail without any fault: mend them first.", file=sys.stderr)
            return 1
        missed = 0
        for fault in chosen:
            outcome = plant(tree, fault)
            missed += outcome != "caught"
            print(f"{outcome:9}  {fault.name:52}  {fault.file:26}  {fault.test}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults turned a test red")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
