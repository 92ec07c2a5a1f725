"""`python -m tests.mutants`: plant faults in the numerics, one at a time; each must fail a test.

A fault is a pattern of Python in a named function, and its replacement while the named tests run.
Names of `_`, `_1`, … match any expression, so that a fault survives new layout, comments and names.
This file is also the pytest plugin that plants one: it parses the module when a test imports it,
and changes no file. Exits with 1 if a fault survives or cannot be planted.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
VARIABLE = "FOVEA_FAULT"  # the number of the fault that this process plants
LIMIT = 300  # seconds for one fault's tests


@dataclass(frozen=True)
class Fault:
    """The fault in words, its function, the code before and after, and the tests that must fail."""

    name: str
    where: str  # file, or file:function
    old: str
    new: str
    tests: str  # file below tests/, or file::test


# fmt: off
FAULTS = [Fault(*row) for row in (
    ("neighbours side by side, not two pixels apart", "pretrain/modules/pixel_attention.py:taps",
     "(DILATION * _, DILATION * _1)", "(_, _1)", "pretrain/modules/test_pixel_attention.py"),
    ("recall counted over all pixels", "pretrain/metrics/saliency.py:_at_each_threshold",
     "_ / _1.sum((1, 2))[:, None]", "_ / _1[0].size", "pretrain/metrics/test_saliency_metrics.py"),
    ("motion across the start of an episode", "pipeline/parts/controls.py:motion",
     "_.step[_1] + 1 == _.step[_2]", "_.step[_1] >= 0", "pipeline/parts/test_controls.py"),
    ("shuffled maps are those of the frame itself", "pipeline/parts/controls.py:others",
     "np.roll(_, 1)", "_", "pipeline/parts/test_controls.py"),
    ("an exam plays a stream's frames that it was not asked for",
     "pipeline/parts/watched.py:__call__", "_ in _1", "_ in [_]",
     "pipeline/test_exam.py::test_scores"),
    ("a control's recall stands for its source's", "pipeline/results/exams.py:score_of",
     "_.get('detected', {}).get(_1, {})", "_.get('detected', {}).get('random', {})",
     "pipeline/results/test_comparisons.py::test_an_exam"),
    ("recordings of a single source as seeds of several", "pipeline/results/exams.py:_spread",
     "list(_[0][2])", "_1", "pipeline/results/test_exams.py"),
    ("weakest cells are removed", "rl/occlusion.py:strongest", "(-_).argsort(kind='stable')",
     "_.argsort(kind='stable')", "rl/test_occlusion.py"),
    ("the policy of the rest against that of the whole", "rl/occlusion.py:_changes",
     "_[:1].exp() * _1", "_[1:].exp() * _1", "rl/test_occlusion.py"),
    ("frames mirrored without their maps", "pretrain/saliency/picanet.py:loss",
     "_[:, :3], _[:, 3:]", "_[:, :3], target",
     "pretrain/saliency/test_picanet.py::test_the_loss_weighs"),
    ("the held-out fifth is trained on", "pipeline/fit.py:split",
     "np.sort(_[_1:] if _2 else _)", "np.sort(_)", "pipeline/test_fit.py::test_four_fifths_train"),
    ("equal values are lost in shuffled AUC", "pretrain/metrics/fixations.py:auc",
     "('left', 'right')", "('left', 'left')", "pretrain/metrics/test_fixations.py"),
    ("each fixated pixel counts once in NSS", "pretrain/metrics/fixations.py:_mean_at",
     "(_ * _1).sum() / _1.sum()", "(_ * (_1 > 0)).sum() / (_1 > 0).sum()",
     "pretrain/metrics/test_fixations.py"),
    ("information in nats", "pretrain/metrics/fixations.py:information_gain",
     "np.log2(_)", "np.log(_)", "pretrain/metrics/test_fixations.py"),
    ("undefined frames count as 0", "pretrain/metrics/fixations.py:averages",
     "_[~np.isnan(_)]", "np.nan_to_num(_)", "pretrain/metrics/test_fixations.py"),
    ("a density that goes around the border", "pretrain/metrics/fixations.py:density",
     "gaussian_filter(_, sigma, mode='mirror', truncate=TRUNCATE)",
     "gaussian_filter(_, sigma, mode='wrap', truncate=TRUNCATE)",
     "pretrain/metrics/test_fixations.py"),
    ("gaze of the frame before", "datasets/sources/atari_head.py:gaze",
     "_ - self.shift", "_ - 1", "datasets/test_atari_head.py::test_both_layouts"),
    ("gaze of an earlier episode", "datasets/sources/atari_head.py:gaze",
     "_ == self._id(_1)", "_ >= 0", "datasets/test_atari_head.py::test_both_layouts"),
    ("a recording of another session", "datasets/recordings.py:_number",
     "_ is None or _[1] != trial.session", "_ is None",
     "datasets/test_atari_head.py::test_a_recording_under"),
    ("a frame's own gaze among the negatives", "pipeline/parts/fixated.py:scores",
     "_[int(self.streams[_1])] - fixations", "_[int(self.streams[_1])]",
     "pipeline/parts/test_fixated.py"),
    ("each pixel with gaze counts once", "datasets/annotation/gaze.py:points",
     "np.repeat(_, _1, axis=0)", "_", "datasets/test_gaze.py"),
    ("a probe's frames held out one by one", "pretrain/metrics/probe.py:split",
     "np.isin(_, _1)", "np.isin(np.arange(len(_)), _1)", "pretrain/metrics/test_probe.py"),
    ("a probe's features centred by frames held out", "pretrain/metrics/probe.py:_centred",
     "self._products[:, _].mean(1)", "self._products.mean(1)", "pretrain/metrics/test_probe.py"),
    ("positions transposed", "pretrain/modules/vit.py:sincos_positions",
     "torch.cat([column, row], dim=1)", "torch.cat([row, column], dim=1)",
     "pretrain/modules/test_vit.py"),
    ("every centre reconstructed from the first frame", "pretrain/spirl/error_map.py:errors_at",
     "_[_1 + _2[:, None]]", "_[_1]", "pretrain/spirl/test_memory.py::test_equals_the_error_map"),
    ("a centre is its own neighbour", "pretrain/spirl/error_map.py:neighbourhoods",
     "_.maximum(_1) == 1", "_.maximum(_1) <= 1", "pretrain/spirl/test_error_map.py"),
    ("NaN errors cached", "pretrain/spirl/error_cache.py",
     "np.isfinite(_).all()", "True", "pretrain/spirl/test_error_log.py"),
    ("selection keeps the smallest errors", "pretrain/spirl/select.py:_worst",
     "_.argsort(dim=1, descending=True, stable=True)",
     "_.argsort(dim=1, descending=False, stable=True)", "pretrain/spirl/test_select.py"),
    ("loss on the wrong patches", "pretrain/encoders/mae.py:loss",
     "F.mse_loss(_, _1)", "F.mse_loss(_, _1.flip(1))",
     "pretrain/test_trainer.py::test_lightning_step_equals_a_plain_loop"),
    ("MultiMAE's decoder adds the query", "pretrain/modules/multimodal_vit.py:forward",
     "self._attend(_, _1)", "_ + self._attend(_, _1)", "pretrain/encoders/test_multimae.py"),
    ("MultiMAE's decoder lacks the global token", "pretrain/modules/multimodal_vit.py:forward",
     "torch.cat([_, _1[:, -1:]], dim=1)", "_", "pretrain/encoders/test_multimae.py"),
    ("pixels that are not salient weigh most", "pretrain/encoders/multimae.py:loss_of",
     "_ / (1.05 - _1)", "_ * (1.05 - _1)", "pretrain/encoders/test_multimae.py"),
    ("a weight's gradient with strides of its own", "pretrain/modules/linear.py:_of_weight",
     "_product(_, _1).t().contiguous()", "_product(_, _1).t()", "pretrain/modules/test_linear.py"),
    ("only the last of two emulator frames is returned", "datasets/screens.py:_rgb96",
     "np.maximum(_, _1)", "_1", "datasets/test_atari.py"),
    ("a recorded frame is rendered after its step", "datasets/sources/replay.py:frames",
     "now == _", "now == _ + 1", "datasets/test_replay_source.py"),
    ("clicks meant for the tip fall on the object", "datasets/annotation/simulated.py",
     "SHARES = _", "SHARES = (0.4, 0.45, 0.15)", "datasets/test_annotation.py"),
    ("terminated and truncated swapped", "rl/returns.py:n_step",
     "terminated & _", "truncated & _", "rl/test_returns.py"),
    ("n-step return runs across the episode's end", "rl/returns.py:n_step",
     "(_.cumsum(1) - _) == 0", "_ == _", "rl/test_returns.py"),
    ("C51 projection loses what lies beyond the ends", "rl/returns.py:project",
     "torch.minimum(torch.maximum(_, low), high)", "_", "rl/test_returns.py"),
    ("advantages run across the episode's end", "rl/returns.py:gae",
     "lam * discount", "lam * torch.ones_like(discount)", "rl/test_rollout_returns.py"),
    ("V-trace without its clipped ratio", "rl/returns.py:vtrace",
     "_.exp().clamp_max(1)", "_.exp()", "rl/test_rollout_returns.py"),
    ("a stack that continues in the next episode", "rl/stack.py:push",
     "_[:, 1:] * _1", "_[:, 1:]", "rl/test_stack.py"),
    ("rewards not clipped", "rl/off_policy.py",
     "np.sign(_) if _1 else _", "_", "rl/test_off_policy.py::test_frames_are_encoded_once"),
    ("a resumed run samples other noise", "rl/agents/rainbow.py",
     "self.generator.set_state(_)", "None", "rl/test_off_policy.py::test_a_run_stopped_after_any"),
    ("next state one row early", "rl/replay.py:sample",
     "torch.where(_ > 0, _1 + _2, _1)", "torch.where(_ > 0, _1 + _2 - 1, _1)", "rl/test_replay.py"),
    ("stack reaches into the episode before", "rl/replay.py:_stacks",
     "_[:, None] >= _1", "_[:, None] >= 0 * _1", "rl/test_replay.py"),
    ("truncated episode bootstraps from the wrong frame", "rl/replay.py:add",
     "self._write(final, 0, _, _1, _1)", "self._write(obs, 0, _, _1, _1)", "rl/test_replay.py"),
    ("rows sampled whose stack the ring has overwritten", "rl/replay.py:_write",
     "range(self.stack)", "range(1)", "rl/test_replay.py"),
    ("importance weights inverted", "rl/replay.py:sample",
     "_ ** -_1", "_ ** _1", "rl/test_replay.py"),
    ("priorities without their exponent", "rl/replay.py:reprioritise",
     "_ ** self.priority_exponent", "_", "rl/test_replay.py"),
    ("rows sampled uniformly that may not be", "rl/replay.py:_index_uniform",
     "_ == 0", "_ < 0", "rl/test_replay.py"),
    ("memory that reaches across episodes", "rl/stack.py:push",
     "_[:, 1:] * _1", "_[:, 1:]", "rl/test_stack.py"),
    ("sigma without gradient", "rl/layers.py:forward",
     "torch.addcmul(_, self.weight_sigma, _1)", "torch.addcmul(_, self.weight_sigma.detach(), _1)",
     "rl/test_layers.py"),
    ("a gradient given to the fused Adam with strides of its own", "rl/layers.py:set_gradients",
     "_.contiguous()", "_", "contracts/test_agents.py::test_an_agent_learns_as_with_adam"),
    ("noise left on in evaluation", "rl/agents/rainbow.py:act",
     "self.policy.train(_)", "self.policy.train()", "rl/test_rainbow.py"),
    ("target network never copied", "rl/agents/rainbow.py",
     "self.updates % _ == 0", "self.updates < 0", "rl/test_rainbow.py"),
    ("double Q picks with the target network", "rl/agents/rainbow.py:targets",
     "self.policy.greedy(self.policy(_))", "self.policy.greedy(self.target(_))",
     "rl/test_rainbow.py"),
    ("pad mask flipped", "rl/nets/tokens.py",
     "_.masked_fill(~_1, -torch.inf)", "_.masked_fill(_1, -torch.inf)", "rl/test_nets.py"),
    ("a squashed action's density is the Gaussian's", "rl/agents/sac.py:log_density",
     "(_ - _1).sum(-1)", "_.sum(-1)", "rl/test_sac.py"),
    ("targets take on all but a share of the critics", "rl/agents/sac.py:update",
     "torch._foreach_lerp_(_, _1, _2)", "torch._foreach_lerp_(_, _1, 1 - _2)", "rl/test_sac.py"),
    ("the temperature goes the wrong way", "rl/agents/sac.py",
     "_ - self.target_entropy", "self.target_entropy - _", "rl/test_sac.py"),
    ("the target is the larger of two critics", "rl/agents/sac.py:targets",
     "_.amin(0)", "_.amax(0)", "rl/test_sac.py"),
    ("a pair of frames across an episode's end", "rl/auxiliary.py:partners",
     "_[:, None] == _", "_[:, None] == _[:, None]", "rl/test_auxiliary.py"),
    ("a frame paired with itself", "rl/auxiliary.py:partners",
     "_ & ~_1", "_", "rl/test_auxiliary.py"),
    ("joint attention resumes with other pairs", "rl/auxiliary.py:load_state_dict",
     "self.generator.set_state(_)", "None", "rl/test_auxiliary.py"),
    ("L_RL trains a mask that it is not to train", "rl/nets/masked_cnn.py:forward",
     "self.rl_gradient and _", "_", "rl/test_auxiliary.py"),
    ("attention on the wrong pixels of a padded image", "rl/attention.py:coverage",
     "_ - field.padding", "_", "rl/test_fls.py"),
    ("receptive fields without their layers' strides", "rl/attention.py:receptive_field",
     "(_ - 1) * stride", "_ - 1", "rl/test_fls.py"),
    ("attention of positions to maps", "rl/attention.py:over_positions",
     "_.softmax(-1)", "_.softmax(1)", "rl/test_fls.py"),
    ("attention that multiplies nothing", "rl/nets/fls.py:forward",
     "masked(_, _1)", "_", "rl/test_fls.py"),
    ("sampled actions are the most probable ones", "rl/play.py:choose",
     "_ + self.random.gumbel(size=_1)", "_", "rl/test_play.py::test_sampled_actions"),
    ("the emulator's -432 is a reward", "datasets/envs/atari.py:_infinite_frame",
     "_ + self._owed", "_", "datasets/test_breakout.py"),
    ("the mask of the oldest frame", "rl/masks.py:masked_by",
     "_['attention'][:, -1:]", "_['attention'][:, :1]", "rl/test_masks.py"),
    ("S3TA's basis without the lowest wave", "rl/nets/top_down.py:_waves",
     "torch.arange(1, _ + 1, dtype=_1)", "torch.arange(0, _, dtype=_1)", "rl/test_top_down.py"),
    ("answers without the basis of their cells", "rl/nets/top_down.py:answers",
     "_ @ _1.T", "_ @ _1.T * 0", "rl/test_top_down.py"),
    ("a key's norm without the basis", "rl/nets/top_down.py:attend",
     "_ + self.basis.square().sum(0)", "_", "rl/test_top_down.py"),
    ("queries that pass no gradient to the memory", "rl/nets/top_down.py:forward",
     "self.ask(_)", "self.ask(_.detach())", "rl/test_top_down.py"),
    ("maps that are not aligned with receptive fields", "rl/nets/top_down.py:on_image",
     "offset(size[0])", "offset(size[0]) * 0", "rl/test_top_down.py"),
    ("a forget gate and a new cell exchanged", "rl/recurrent.py:forward",
     "_.sigmoid() * _1 + _2.sigmoid() * _3.tanh()", "_2.sigmoid() * _1 + _.sigmoid() * _3.tanh()",
     "rl/test_top_down.py"),
    ("a memory that reaches across episodes", "rl/recurrent.py:reset",
     "_ * ~_1", "_", "rl/test_top_down.py"),
    ("IMPALA's residual block without its skip", "rl/nets/impala_resnet.py:forward",
     "_ + inner", "inner", "rl/test_impala_resnet.py"),
    ("V-trace's targets with gradients", "rl/agents/impala.py:vtrace_loss",
     "_.detach() - rollout.log_prob", "_.detach() * 0", "rl/test_impala.py"),
    ("RMSProp's epsilon beside the root", "rl/rmsprop.py:step",
     "torch._foreach_add(_, _1)", "torch._foreach_add(_, 0)", "rl/test_impala.py"),
    ("groups of environments with the first ones' last values", "rl/agents/impala.py:groups",
     "rollout.last_value[_]", "rollout.last_value[:len(rollout.last_value[_])]",
     "rl/test_impala.py"),
    ("K-FAC factors of a mask generator", "rl/kfac.py:__init__",
     "_ not in _1", "True", "rl/test_kfac.py"),
    ("a factor without its upper triangle", "rl/kfac.py:_gram",
     "_.tril() + _.tril(-1).T", "_.tril()", "rl/test_kfac.py"),
    ("a frame's mask depends on its batch", "pretrain/modules/batched.py:_sigmoid",
     "-_ % VECTOR", "0 * _", "pretrain/modules/test_batched.py"),
    ("one degree of freedom too many", "rl/statistics.py:welch_interval",
     "len(_) - 1", "len(_)", "rl/test_statistics.py"),
)]
# fmt: on


class _Planter(ast.NodeTransformer):
    """Replaces the match of a fault's pattern, inside its function."""

    def __init__(self, fault: Fault) -> None:
        self._old, self._new = _pattern(fault.old), fault.new
        self._function = fault.where.partition(":")[2]
        self._depth = 0 if self._function else 1
        self.count = 0

    def visit(self, node: ast.AST) -> Any:
        inside = isinstance(node, ast.FunctionDef) and node.name == self._function
        self._depth += inside
        values: dict[str, ast.AST] = {}
        if self._depth and _matches(self._old, node, values):
            self.count += 1
            return ast.copy_location(_Filler(values).visit(_pattern(self._new)), node)
        node = self.generic_visit(node)
        self._depth -= inside
        return node


class _Filler(ast.NodeTransformer):
    """Replaces a pattern's wildcards by expressions."""

    def __init__(self, values: dict[str, ast.AST]) -> None:
        self._values = values

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._values.get(node.id, node)


def _pattern(text: str) -> ast.AST:
    statement = ast.parse(text).body[0]
    return statement.value if isinstance(statement, ast.Expr) else statement


def _matches(pattern: Any, node: Any, values: dict[str, ast.AST]) -> bool:
    """Whether they are equal except for wildcards, whose expressions are stored in `values`."""
    if isinstance(pattern, ast.Name) and re.fullmatch(r"_\d?", pattern.id):
        known = values.setdefault(pattern.id, node)
        return isinstance(node, ast.expr) and ast.dump(known) == ast.dump(node)
    if isinstance(pattern, list):
        return len(pattern) == len(node) and all(
            _matches(old, new, values) for old, new in zip(pattern, node, strict=True)
        )
    if not isinstance(pattern, ast.AST):
        return bool(pattern == node)
    return type(pattern) is type(node) and all(
        _matches(value, getattr(node, field), values)
        for field, value in ast.iter_fields(pattern)
        if field != "ctx"
    )


def plant(fault: Fault, source: str) -> ast.Module:
    """The module with the fault in it. LookupError unless its pattern occurs exactly once."""
    planter = _Planter(fault)
    tree: ast.Module = planter.visit(ast.parse(source))
    if planter.count != 1:
        raise LookupError(f"{fault.where}: {planter.count} times {fault.old!r}, must be once")
    return ast.fix_missing_locations(tree)


def pytest_load_initial_conftests() -> None:
    """Plant this process's fault in its module at the first import, which a conftest may make."""
    if VARIABLE not in os.environ:
        return
    fault = FAULTS[int(os.environ[VARIABLE])]
    path = ROOT / fault.where.partition(":")[0]
    usual = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        if Path(self.path) != path:
            return usual(self, name)
        return compile(plant(fault, path.read_text("utf-8")), path, "exec")

    mock.patch.object(SourceFileLoader, "get_code", get_code).start()


def outcome(number: int) -> str:
    """The outcome of a fault's tests: "caught", "SURVIVED", or "BROKEN" if none could run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.mutants"]
    path, _, test = FAULTS[number].tests.partition("::")
    command += ["-p", "no:cacheprovider", f"tests/{path}", *(["-k", test] if test else [])]
    environment = os.environ | {VARIABLE: str(number), "OMP_NUM_THREADS": "1"}
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return "caught"  # a fault that hangs is noticed too
    if run.returncode > 1:
        print(run.stdout[-2_000:], run.stderr[-2_000:], file=sys.stderr)
    return {0: "SURVIVED", 1: "caught"}.get(run.returncode, "BROKEN")


def main() -> int:
    """Plant every fault, or those whose names contain the arguments; 0 if all were caught."""
    numbers = [n for n, fault in enumerate(FAULTS) if all(a in fault.name for a in sys.argv[1:])]
    missed = 0
    for number in numbers:
        result = outcome(number)
        missed += result != "caught"
        print(f"{result:9} {FAULTS[number].name:58} {FAULTS[number].where}", flush=True)
    print(f"{len(numbers) - missed} of {len(numbers)} faults failed a test")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
