"""Use encoders' artifacts in other libraries: `python -m tests.adapters`, or `make adapters`.

Each library is installed into an environment of its own, in a temporary folder. A line of a `.pth`
file lends it torch, and whatever else the library needs and `.venv` has, so that only the rest is
downloaded. The scripts run with `python -I`, which cannot import this repository.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from tests.adapters.artifacts import FORMS, write

HERE = Path(__file__).parent
LIBRARIES = {"use_sb3.py": "stable-baselines3", "use_torchrl.py": "torchrl"}


def use(script: str, library: str, folder: Path, artifacts: list[Path]) -> None:
    """Run a script in a new environment with the library. Raises CalledProcessError."""
    home = folder / library
    venv.create(home, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = home / "lib" / version / "site-packages"
    (own / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    python = str(home / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", library], check=True)
    shown = f"import importlib.metadata as m; print('{library}', m.version('{library}'), end=': ')"
    subprocess.run([python, "-I", "-c", shown], check=True)
    command = [python, "-I", str(HERE / script), str(HERE), *map(str, artifacts)]
    subprocess.run(command, check=True, cwd=folder)
    print(f"equal within 1e-5 for features of {', '.join(FORMS)}", flush=True)


def main() -> None:
    """Make an artifact of each form of features, and use them in each library."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for form in FORMS:
            write(form, folder / form)
        for script, library in LIBRARIES.items():
            use(script, library, folder, [folder / form for form in FORMS])


if __name__ == "__main__":
    main()
