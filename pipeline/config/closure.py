"""Which of our files decide what a stage makes: its imports, followed through the four packages.

DVC doesn't follow imports, so `dvc.yaml` lists them (a test compares the two), and a stage's
fingerprint covers them. How a stage is started, checked, locked and published is the same for all
and decides nothing about the result: those files are left out, so that mending a message there
doesn't train anything again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("datasets", "pretrain", "rl", "pipeline")
CODE = Path(__file__).parents[2]
PLUMBING = frozenset(
    f"pipeline/{name}.py"
    for name in (
        "config/closure",
        "config/tables",
        "config/typed",
        "params",
        "runtime/artifact",
        "runtime/attempts",
        "runtime/parallel",
        "runtime/progress",
        "runtime/stage",
    )
)


def files(roots: Iterable[str], base: Path = CODE) -> list[Path]:
    """Every file of ours that importing these modules runs, less PLUMBING, relative to `base`.

    A file that holds a docstring alone runs nothing: `__init__.py` of most packages.
    Imports inside functions count too. A word's file is imported by name at run time, so words are
    roots of their own (`words`).
    """
    found: set[Path] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        for path in _paths(name, base):
            if path not in found and path.as_posix() not in PLUMBING:
                found.add(path)
                todo += _imports(base / path, path)
    return sorted(path for path in found if _runs(base / path))


def sources(base: Path = CODE) -> list[Path]:
    """Every Python file of the four packages."""
    return sorted(path for name in PACKAGES for path in (base / name).rglob("*.py"))


def words(stage: str, entry: Mapping[str, Any]) -> list[str]:
    """The modules that an entry's own words name."""
    named = []
    if stage == "collect":
        named.append(f"datasets.sources.{entry['source']}")
        if entry["source"] == "replay":
            named.append("rl.nets.vector")  # of its learner, which has no other word
    if stage == "annotate":
        named.append(f"datasets.annotation.{entry['annotator']}")
    if stage == "fit":
        named.append(f"pretrain.saliency.{entry['model']}")
    if stage == "pretrain":
        named.append(f"pretrain.encoders.{entry['model']}")
    if stage in ("train", "evaluate"):
        named.append(f"rl.agents.{entry['agent']}")
        nets = sorted((CODE / "rl" / "nets").glob("*.py"))  # which one, only the encoder says
        named += [f"rl.nets.{path.stem}" for path in nets if path.stem != "__init__"]
    if "env" in entry:
        named.append(f"datasets.envs.{str(entry['env']).split('/')[0]}")
    return named


def carried(header: Mapping[str, Any]) -> list[str]:
    """The modules of the encoder or predictor that an artifact's `config.json` names, and of the
    source of saliency within it.
    """
    named = []
    if "model" in header:  # a word of one of the two
        named += [f"pretrain.{kind}.{header['model']}" for kind in ("encoders", "saliency")]
    for part in header.values():
        named += carried(part) if isinstance(part, Mapping) else []
    return named


def digest(root: str, words: Iterable[str]) -> str:
    """sha256 over the names and bytes of every file that a stage runs."""
    seen = hashlib.sha256()
    for path in files([root, *words]):
        seen.update(f"{path.as_posix()}\0".encode())
        seen.update(hashlib.sha256((CODE / path).read_bytes()).digest())
    return seen.hexdigest()


def _paths(module: str, base: Path) -> list[Path]:
    """`rl.agents.rainbow` -> its file and the `__init__.py` of each package on the way."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return []
    inits = [Path(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
    return [p for p in [*inits, Path(*parts).with_suffix(".py")] if (base / p).is_file()]


@functools.lru_cache(maxsize=512)
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _runs(path: Path) -> bool:
    """Whether a file holds more than a docstring."""
    body = _parsed(path).body
    return any(not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in body)


@functools.lru_cache(maxsize=512)
def _imports(path: Path, relative: Path) -> list[str]:
    """Names a file imports; `from a import b` counts as `a` and `a.b`, which may be a module."""
    names: list[str] = []
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(relative.parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names
