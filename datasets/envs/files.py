"""Images of no environment: "files/images?height=64&width=96", for frames of `source: files`.

It states the images' size, to which they are resized. Nothing can be played here: a policy on such
frames' encoder names an environment whose images have that size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from datasets.checked import Checked, Count
from datasets.errors import FoveaError
from datasets.resized import RESIZE, odd_sides

FRAME_INFO: tuple[str, ...] = ()
ACTIONS, OPTIONS, GAME_OPTIONS = "none", ("height", "width"), ()


@dataclass(frozen=True)
class Config(Checked):
    """The size of the images; the other fields are those of every suite."""

    game: str  # "images"
    num_envs: Count = 1
    life_loss_ends: bool = False
    images: bool = True
    height: str = "96"  # pixels, as the name of the environment has them
    width: str = "96"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return 3, int(self.height), int(self.width)

    def rules(self) -> Iterator[str]:
        """The sides of the image are numbers."""
        yield from odd_sides(self.height, self.width)
        if self.game not in games():
            yield f"game: {self.game!r}, must be images"


def games() -> tuple[str, ...]:
    """The one name there is."""
    return ("images",)


def single(config: Config, seed: int, index: int) -> NoReturn:
    """Raise FoveaError: there is nothing to play."""
    raise _no_environment()


def make(config: Config, seed: int) -> NoReturn:
    """Raise FoveaError: there is nothing to play."""
    raise _no_environment()


def action_space(config: Config) -> Any:
    """Raise FoveaError: there is nothing to play."""
    raise _no_environment()


def preprocessing(config: Config) -> dict[str, Any]:
    """How an image is made of a recorded one (datasets/envs/__init__.py)."""
    return {"colour": "rgb", "resize": RESIZE}


def _no_environment() -> FoveaError:
    return FoveaError(
        "environment 'files/images': its images were recorded, and it cannot be played; name it "
        "with `source: files` only, and another environment in policies"
    )
