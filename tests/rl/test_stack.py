"""Stacks of frames: rolling step by step, the same for a sequence at once, reset at episodes."""

from __future__ import annotations

import torch

from pretrain.encoder import Obs
from rl.net import Extras, Net
from rl.stack import FrameStack, push


def frame(number: int) -> Obs:
    value = torch.full((2, 1), float(number))
    return {"x": value, "mask": value.bool()}


def test_the_stack_rolls_and_a_new_episode_begins_with_zeros() -> None:
    stack = {"x": torch.full((2, 3, 1), 9.0), "mask": torch.ones(2, 3, 1).bool()}
    stack = push(frame(1), stack, torch.tensor([True, True]))
    stack = push(frame(2), stack, torch.tensor([False, False]))
    stack = push(frame(3), stack, torch.tensor([False, True]))
    assert stack["x"][:, :, 0].tolist() == [[1, 2, 3], [0, 0, 3]]
    assert stack["mask"].dtype == torch.bool
    stack = push(frame(4), stack, torch.tensor([False, False]))
    assert stack["x"][:, :, 0].tolist() == [[2, 3, 4], [0, 3, 4]]


class StackNet(Net):
    """The stack unchanged."""

    width = 3

    def forward(self, stack: Obs) -> tuple[torch.Tensor, Extras]:
        return stack["x"][..., 0], {"attention": stack["mask"]}


def test_a_sequence_gives_every_steps_own_stack() -> None:
    core = FrameStack(StackNet(), 3, frame(0))
    obs = {key: torch.stack([frame(n)[key] for n in (1, 2, 3, 4)]) for key in ("x", "mask")}
    first = torch.tensor([[True, True], [False, False], [False, True], [False, False]])
    features, state, extras = core(obs, core.initial(2), first)
    assert features[:, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert features[:, 1].tolist() == [[0, 0, 1], [0, 1, 2], [0, 0, 3], [0, 3, 4]]
    assert state["x"][1, :, 0].tolist() == [0, 3, 4]
    assert extras["attention"].shape == (4, 2, 3, 1)


def test_the_first_state_is_all_zero_and_no_weight() -> None:
    core = FrameStack(StackNet(), 3, {"image": torch.zeros(7, 3, 5, 5, dtype=torch.uint8)})
    (blank,) = core.initial(4).values()
    assert blank.shape == (4, 3, 3, 5, 5) and blank.dtype == torch.uint8 and not blank.any()
    assert not core.state_dict()
