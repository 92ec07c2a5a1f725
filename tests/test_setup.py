"""The set-up: the lock, the Makefile, DVC's config, the system checker, no skips in CI."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCK = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAYERS = {"datasets", "pretrain", "rl", "pipeline"}
OURS = LAYERS | {"bench", "tests", "tools"}


def declared(lines: list[str]) -> set[str]:
    """The distributions' names in requirement lines, in the lock's spelling."""
    return {re.sub(r"[-_.]+", "-", re.split("[=<>~!; ]", x)[0]).lower() for x in lines}


RUNTIME = declared(PROJECT["project"]["dependencies"])
CLUSTER = declared(PROJECT["dependency-groups"]["cluster"])
DEVELOPMENT = CLUSTER | declared(
    [line for line in PROJECT["dependency-groups"]["dev"] if isinstance(line, str)]
)
CLUSTER_FILE = "pipeline/runtime/cluster.py"  # nothing else needs a cluster's packages
ADAPTERS = declared(PROJECT["dependency-groups"]["adapters"])
ADAPTING = {
    "pretrain/fovea_encoder.py",
    "tests/adapters/use_sb3.py",
    "tests/adapters/use_torchrl.py",
}
LENT = {"fovea_encoder", "frames"}  # files that the scripts of tests/adapters find in their folders


# --- the lock -------------------------------------------------------------------------------------


def test_lock_is_exact_pins_and_nothing_else() -> None:
    pin = r"[a-z0-9][a-z0-9-]*==[0-9][A-Za-z0-9.]*"  # no host, path, hash, option or range
    test = r"[a-z_]+ [<>=!]+ '[^'/:]+'"
    assert [x for x in LOCK if not re.fullmatch(rf"{pin}( ; {test}( (and|or) {test})*)?", x)] == []
    assert LOCK


def test_lock_has_every_direct_dependency() -> None:
    assert (RUNTIME | DEVELOPMENT) - declared(LOCK) == set()


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it, except its own package's."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def usable(path: Path) -> set[str]:
    """The distributions that a file may import from."""
    if path.as_posix() == CLUSTER_FILE:
        return RUNTIME | CLUSTER
    if path.as_posix() in ADAPTING:
        return RUNTIME | ADAPTERS | (declared(list(LENT)) if path.parts[0] == "tests" else set())
    return RUNTIME if path.parts[0] in LAYERS else RUNTIME | DEVELOPMENT


def test_imports_are_declared() -> None:
    """A package that is installed only as another's dependency may disappear with it."""
    distributions = packages_distributions()
    undeclared = [
        f"{path.relative_to(ROOT)}: {name}"
        for package in sorted(OURS)
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in sorted(imported(path) - OURS - sys.stdlib_module_names)
        if declared(distributions.get(name, [name])).isdisjoint(usable(path.relative_to(ROOT)))
    ]
    assert undeclared == []


def test_torch_is_the_pinned_one() -> None:
    assert {"torch==2.11.0", "torchvision==0.26.0"} <= set(LOCK)


# --- the Makefile ---------------------------------------------------------------------------------


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert re.findall(r"^  make (\S+)", done, re.MULTILINE) == targets
    assert all(len(line.split(maxsplit=2)) == 3 for line in done.splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with all files that `make` needs to plan a target, its `.venv` up to date."""
    for name in ("Makefile", "requirements.lock", "tools/doctor.sh", ".venv/.stamp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"" if name == ".venv/.stamp" else (ROOT / name).read_bytes())
    return tmp_path


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )


def test_setup_refuses_a_symbolic_link_and_leaves_its_target_alone(checkout: Path) -> None:
    """`python -m venv --clear` would follow it and empty the folder that it points to."""
    target = checkout / "elsewhere"
    (checkout / ".venv").rename(target)
    (target / ".stamp").rename(target / "precious.txt")
    (checkout / ".venv").symlink_to(target)
    done = make(checkout, "setup")
    assert done.returncode == 2
    assert f".venv is a symbolic link, and setting up would empty {target}" in done.stderr
    assert [path.name for path in target.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("target", ["repro", "annotate", "recipe", "smoke", "test", "lock"])
def test_make_takes_its_variables_from_the_command_line_only(checkout: Path, target: str) -> None:
    names = ("NAME", "AS", "PORT", "STAGE", "FORCE", "ARGS", "UPGRADE", "PYTHON")
    plain = make(checkout, "-n", target)
    exported = make(checkout, "-n", target, **dict.fromkeys(names, "leaked"))
    assert plain.returncode == 0 and plain.stdout == exported.stdout
    assert "--as" not in plain.stdout  # make has a default of its own for AS
    plan = make(checkout, "-n", target, *(f"{name}=asked" for name in names))
    assert "asked" in plan.stdout or "--upgrade" in plan.stdout


def test_files_are_checked_out_as_they_are_committed(tmp_path: Path) -> None:
    """Whatever git's settings for line endings: stamps and digests are of bytes."""
    texts = {".gitattributes": (ROOT / ".gitattributes").read_bytes(), "lf.py": b"a\n"}
    texts |= {"crlf.csv": b"a\r\n"}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
    git = ["git", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    for name in texts:
        (tmp_path / name).unlink()
    subprocess.run([*git, "checkout", "-q", "."], cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in texts} == texts


# --- files that one reads in a sitting ------------------------------------------------------------


@pytest.mark.parametrize("package", ["datasets", "pretrain", "rl", "pipeline", "bench", "tools"])
def test_no_file_is_longer_than_the_limit(package: str) -> None:
    lengths = {p: len(p.read_text("utf-8").splitlines()) for p in (ROOT / package).rglob("*.py")}
    assert lengths and not {path: count for path, count in lengths.items() if count > 330}


# --- DVC ------------------------------------------------------------------------------------------


def test_dvc_sends_nothing_and_links_before_it_copies() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc" / "config")
    assert {key: config["core"].getboolean(key) for key in config["core"]} == {
        "analytics": False,
        "check_update": False,
        "autostage": False,
    }
    assert config["cache"]["type"].strip('"').split(",")[0] == "hardlink"


# --- the system checker ---------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> None:
    """An executable shell script `name` in `folder`."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A folder as the whole PATH of a complete system: Python, git, an ordinary user."""
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "git", "echo git version 2")
    program(tmp_path, "python3.11", f'exec {sys.executable} "$@"')
    return tmp_path


def doctor(system: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "tools" / "doctor.sh")
    return subprocess.run(
        ["/bin/sh", script, *arguments],
        env={"PATH": str(system), "LANG": os.environ.get("LANG", "C.UTF-8")},
        capture_output=True,
        text=True,
    )


def test_doctor_prints_the_python_of_a_complete_system(system: Path) -> None:
    done = doctor(system)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, sys.executable, "")


@pytest.mark.parametrize(
    ("broken", "script", "package"),
    [
        ("git", None, "git"),
        ("python3.11", None, "python3"),
        ("python3.11", "exit 1", "python3"),  # a pyenv shim without that version, Python 3.13
        (
            "python3.11",
            f'case "$2" in *ensurepip*) exit 1;; esac; exec {sys.executable} "$@"',
            f"python3.{sys.version_info.minor}-venv",
        ),
        (
            "python3.11",
            f'case "$2" in *libz*) exit 1;; esac; exec {sys.executable} "$@"',
            "zlib1g",
        ),
    ],
    ids=["git", "no-python", "unsupported-python", "venv", "library"],
)
def test_doctor_names_the_missing_package_in_one_line(
    system: Path, broken: str, script: str | None, package: str
) -> None:
    (system / broken).unlink() if script is None else program(system, broken, script)
    done = doctor(system)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [line for line in done.stderr.splitlines() if "Debian package" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"install the Debian package {package} (apt-get install {package})")


def test_doctor_names_a_python_of_another_version(system: Path) -> None:
    program(system, "python3.11", "exit 1")
    program(system, "python3", '[ "$1" = -V ] && echo Python 3.13.1')
    done = doctor(system)
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.13.1 is not a Python 3.11 or 3.12: install one")
    assert "Debian package python3" not in done.stderr
    assert "make setup PYTHON=" in done.stderr


@pytest.mark.parametrize("name", ["chromium", "google-chrome"])
def test_doctor_accepts_any_chromium(system: Path, name: str) -> None:
    assert doctor(system, "browser").returncode == 1
    program(system, name, "true")
    assert doctor(system, "browser").returncode == 0


def test_doctor_installs_as_root_without_asking(system: Path) -> None:
    (system / "git").unlink()
    program(system, "id", "echo 0")
    git = f"printf '#!/bin/sh\\n' >{system}/git; /bin/chmod +x {system}/git"
    program(
        system,
        "apt-get",
        f'case "$*" in update*) exit 1;; *"-y --no-install-recommends git") {git};; esac',
    )
    done = doctor(system)
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)
    assert "installing the Debian package git" in done.stderr


def test_doctor_says_when_root_cannot_install(system: Path) -> None:
    (system / "git").unlink()
    program(system, "id", "echo 0")
    program(system, "apt-get", "exit 100")
    done = doctor(system)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("could not install the Debian package git")


def test_doctor_refuses_a_named_python_that_is_none(system: Path) -> None:
    program(system, "python2", "exit 1")
    done = doctor(system, "python2")
    assert (done.returncode, done.stderr) == (1, "python2 is not a Python 3.11 or 3.12\n")


# --- no skips in CI -------------------------------------------------------------------------------

TESTS = {
    "passes": "def test_it() -> None: pass",
    "skipped": "import pytest\n@pytest.mark.skip\ndef test_it() -> None: pass",
    "slow": "import pytest\n@pytest.mark.slow\ndef test_it() -> None: pytest.skip('no time')",
    "module": "import pytest\npytest.skip('all of it', allow_module_level=True)",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it() -> None: raise ValueError",
    "gpu": "import pytest\n@pytest.mark.gpu\ndef test_it() -> None: pytest.skip('no GPU')",
}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_only_gpu_tests_may_be_skipped_in_ci(tmp_path: Path, workers: str) -> None:
    for name, text in TESTS.items():
        (tmp_path / f"test_{name}.py").write_text(text + "\n")
    options = ["-q", "-n", workers, "-p", "tools.no_skips", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            "-c",
            str(ROOT / "pyproject.toml"),
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    named = set(re.findall(r"skipped, and not marked gpu: \S*test_(\w+)\.py", done.stdout))
    assert named == {"skipped", "slow", "module", "xfail"}
    assert done.returncode == 1
