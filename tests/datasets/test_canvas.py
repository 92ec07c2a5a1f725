"""The renderer of Meta-World: how it is chosen, and the error without one, which names the Debian
packages.
"""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets import canvas
from datasets.errors import FoveaError

CODE = Path(__file__).parents[2]
NO_DRIVER = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/none.json"}  # libEGL without a driver
DRAW = """
import sys
from datasets.errors import FoveaError
try:
    from datasets import envs
    assert envs.single("metaworld/reach", seed=0, index=0).reset()[0].std() > 20
except FoveaError as error:
    sys.exit(f"error: {error}")
"""


def render(**words: str) -> subprocess.CompletedProcess[str]:
    """Render a task in a new process with these variables, as MuJoCo chooses a renderer
    only once.
    """
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")
    }
    command = [sys.executable, "-W", "ignore", "-c", DRAW]
    return subprocess.run(
        command, cwd=CODE, env=environment | words, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("word", ["egl", "glfw", "paper"])
def test_a_chosen_renderer_that_fails_is_named(word: str) -> None:
    """EGL fails without a driver, a window without a screen, an unknown name when looked up."""
    done = render(MUJOCO_GL=word, **NO_DRIVER)
    assert done.returncode == 1 and done.stderr.startswith("error: no renderer"), done.stderr
    assert f"MUJOCO_GL='{word}'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "Debian package libosmesa6, or libegl1 and libgl1-mesa-dri" in done.stderr


@pytest.mark.slow
def test_without_egl_s_driver_osmesa_is_used_if_installed() -> None:
    assert render().returncode == 0
    done = render(**NO_DRIVER)
    if ctypes.util.find_library("OSMesa"):
        assert done.returncode == 0, done.stderr
    else:
        assert "error: no renderer for Meta-World (MUJOCO_GL=''" in done.stderr


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with both libraries, and no choice in MUJOCO_GL."""
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so")


def test_egl_without_a_driver_is_skipped(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_DRIVER.items():
        monkeypatch.setenv(name, value)
    assert canvas._library() == "osmesa" == os.environ["MUJOCO_GL"]  # children try it no more
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(canvas, "_egl_renders", lambda: True)
    assert canvas._library() == "egl"


def test_without_any_library_the_packages_are_named(
    both: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(FoveaError, match=r"neither libEGL nor libOSMesa is installed\); install"):
        canvas.gl_context()
