"""What Meta-World is drawn with: found, tried, and its lack told with the Debian packages."""

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
NO_DRIVER = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/none.json"}  # libEGL is there, and nothing else
DRAW = """
import sys
from datasets.errors import FoveaError
try:
    from datasets import envs
    assert envs.single("metaworld/reach", seed=0, index=0).reset()[0].std() > 20
except FoveaError as error:
    sys.exit(f"told: {error}")
"""


def render(**words: str) -> subprocess.CompletedProcess[str]:
    """Draw a task in a process with this environment: MuJoCo chooses once a process."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")
    }
    command = [sys.executable, "-W", "ignore", "-c", DRAW]
    return subprocess.run(
        command, cwd=CODE, env=environment | words, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("word", ["egl", "glfw", "paper"])
def test_what_is_asked_for_and_cannot_draw_is_told(word: str) -> None:
    """EGL fails for want of a driver, a window for want of a screen, paper when it is looked up."""
    done = render(MUJOCO_GL=word, **NO_DRIVER)
    assert done.returncode == 1 and done.stderr.startswith("told: no renderer"), done.stderr
    assert f"MUJOCO_GL='{word}'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "Debian package libosmesa6, or libegl1 and libgl1-mesa-dri" in done.stderr


@pytest.mark.slow
def test_without_egl_s_driver_osmesa_draws_where_it_is_there() -> None:
    assert render().returncode == 0
    done = render(**NO_DRIVER)
    if ctypes.util.find_library("OSMesa"):
        assert done.returncode == 0, done.stderr
    else:
        assert "told: no renderer for Meta-World (MUJOCO_GL=''" in done.stderr


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with both libraries, and no wish."""
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so")


def test_egl_without_a_driver_is_passed_over(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_DRIVER.items():
        monkeypatch.setenv(name, value)
    assert canvas._library() == "osmesa" == os.environ["MUJOCO_GL"]  # children try it no more
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(canvas, "_egl_renders", lambda: True)
    assert canvas._library() == "egl"


def test_no_library_at_all_is_told(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(FoveaError, match=r"neither libEGL nor libOSMesa is installed\); install"):
        canvas.gl_context()
