"""A seed's folder, independent of any algorithm: several environments, several steps at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rl.run import DivergedError, Run, environment_part, generator_part, stateful
from tests.rl import fakes

CPU = torch.device("cpu")


def infos(returns: list[float], over: list[bool]) -> dict[str, Any]:
    """Of several environments, in the form of gymnasium's vector environments."""
    final = {
        "game_over": np.array(over),
        "game_return": np.array(returns),
        "game_length": np.full(len(over), 7),
    }
    return {"final_info": final}


def test_finished_episodes_of_several_environments_are_one_line_each(tmp_path: Path) -> None:
    run = Run(tmp_path, seed=0)
    run.begin({}, CPU)
    run.advance(10, {}, np.zeros(3, np.bool_))
    run.advance(10, infos([1.0, 2.0, 3.0], [True, False, True]), np.array([True, True, False]))
    run.save_weights(nn.Linear(1, 1))
    run.finish(updates=3)
    assert (tmp_path / "curve.csv").read_text() == "step,return,length\n20,1.0,7\n"
    assert (tmp_path / "weights-0000020.safetensors").exists()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == 20 and metrics["updates"] == 3 and metrics["games"] == 1
    assert run.finished and not run.resume.exists()


def test_multiples_are_noticed_when_steps_skip_them(tmp_path: Path) -> None:
    run, reached = Run(tmp_path, seed=0), []
    for _ in range(10):
        run.advance(16, {}, np.zeros(16, np.bool_))
        reached.append(run.is_due(50))
    assert [16 * (i + 1) for i, at in enumerate(reached) if at] == [64, 112, 160]


def test_every_part_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    """Two environments, a generator and a module."""

    def parts() -> tuple[Any, Any, Any]:
        environment = fakes.make_chain("fake/Chain", num_envs=2, seed=3)
        environment.reset()
        return environment, np.random.default_rng(0), nn.Linear(2, 1)

    def begin(folder: Path, environment: Any, generator: Any, module: Any) -> Run:
        run = Run(folder, seed=0)
        named = {
            "environment": environment_part(environment),
            "generator": generator_part(generator),
            "module": stateful(module),
        }
        run.begin(named, CPU)
        return run

    def resume(environment: Any, generator: Any, module: Any) -> list[Any]:
        values: list[Any] = [*module.parameters()]
        for _ in range(20):
            images, *rest, _ = environment.step(generator.integers(3, size=2))
            values += [images.copy(), *(value.copy() for value in rest)]
        return values

    first = parts()
    run = begin(tmp_path, *first)
    resume(*first)
    run.advance(40, {}, np.zeros(2, np.bool_))
    run.checkpoint()
    second = parts()
    again = begin(tmp_path, *second)
    assert again.step == 40
    for one, other in zip(resume(*first), resume(*second), strict=True):
        np.testing.assert_array_equal(np.asarray(one.data), np.asarray(other.data))


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The last update's loss is that of the weights before it."""
    run, module = Run(tmp_path, seed=0), nn.Linear(1, 1)
    run.begin({}, CPU)
    run.advance(1, {}, np.zeros(1, np.bool_))
    nn.init.constant_(module.bias, float("nan"))
    with pytest.raises(DivergedError, match="the weights are"):
        run.save_weights(module)
    assert not list(tmp_path.glob("weights-*")) and (tmp_path / "failed.json").exists()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
@pytest.mark.parametrize("when", ["save_weights", "checkpoint", "finish"])
def test_no_files_are_kept_of_a_loss_that_is_not_finite(
    loss: float, when: str, tmp_path: Path
) -> None:
    run = Run(tmp_path, seed=5)
    run.begin({}, CPU)
    run.advance(30, {}, np.zeros(1, np.bool_))
    run.log({"loss": torch.tensor(loss)})
    with pytest.raises(DivergedError, match=r"seed 5: the loss is not finite at step 30"):
        getattr(run, when)(*([nn.Linear(1, 1)] if when == "save_weights" else []))
    names = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert names == ["curve.csv", "failed.json"]
    assert json.loads((tmp_path / "failed.json").read_text())["step"] == 30
