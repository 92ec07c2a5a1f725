"""MuJoCo's off-screen renderer: EGL, on a GPU where there is one, or else OSMesa."""

from __future__ import annotations

import atexit
import ctypes.util
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import FoveaError

TRY_EGL = """
import mujoco, mujoco.egl, os
context = mujoco.egl.GLContext(1, 1)
context.make_current()
model = mujoco.MjModel.from_xml_string("<mujoco/>")
mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
os._exit(0)  # skip mujoco's finalizers
"""


@contextmanager
def rendering() -> Iterator[None]:
    """Turn any error of a rendering library into a FoveaError: each raises another kind.

    mujoco is imported in here too: its first import loads the library that MUJOCO_GL names.
    """
    try:
        yield
    except Exception as error:
        raise FoveaError(
            f"no renderer for Meta-World (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: "
            f"{error}); install the Debian package libosmesa6, or libegl1 and libgl1-mesa-dri, and "
            "leave MUJOCO_GL unset"
        ) from error


with rendering():
    import mujoco


def gl_context() -> Any:
    """The context's class: of the library that MUJOCO_GL names, else EGL's, else OSMesa's.

    Raises FoveaError where the library cannot be loaded.
    """
    with rendering():
        return importlib.import_module(f"mujoco.{_library()}").GLContext


def _library() -> str:
    """The rendering library: "egl", "osmesa" or another of mujoco's."""
    if name := os.environ.get("MUJOCO_GL"):
        return name.lower()
    installed = [name for name in ("EGL", "OSMesa") if ctypes.util.find_library(name)]
    if not installed:
        raise ImportError("neither libEGL nor libOSMesa is installed")
    if len(installed) == 1:
        return installed[0].lower()
    # Child processes need not try EGL again.
    os.environ["MUJOCO_GL"] = name = "egl" if _egl_renders() else "osmesa"
    return name


def _egl_renders() -> bool:
    """Whether libEGL has a driver too; the trial takes a second.

    It runs in a process of its own: in this one MuJoCo would keep EGL even after a failure.
    """
    trial = subprocess.run([sys.executable, "-c", TRY_EGL], capture_output=True, check=False)
    return trial.returncode == 0


class Canvas:
    """The off-screen buffer of one kind of scene."""

    def __init__(self, model: mujoco.MjModel, render: str, height: int, width: int) -> None:
        self._fast = render == "fast"
        if self._fast:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        kind = gl_context()
        kind._context = None  # its finalizer reads this even where __init__ has failed
        with rendering():
            self._gl = kind(width, height)
            atexit.register(self._gl.free)  # mujoco's own finalizer fails at the interpreter's end
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2_000)
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._option, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._pixels = np.empty((height, width, 3), np.uint8)

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> NDArray[np.uint8]:
        """Render a camera's view, (H, W, 3), the lowest row first."""
        self._gl.make_current()
        self._view.fixedcamid = camera
        mujoco.mjv_updateScene(
            model, data, self._option, None, self._view, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        if self._fast:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._viewport, self._context)
        return self._pixels
