"""The files of code that decide the result of a stage on an entry: its code stamp.

DVC doesn't follow imports. So a stage's imports are followed here, through the four packages; of
the components, only those count that the entry names. `pipeline/params.py` writes the stamps, which
`dvc.yaml` makes a dependency of each stage instance. A stage's fingerprint covers the same files.

Files that start, check, lock and publish a stage are left out (PLUMBING): they are the same for all
stages and do not change a result, nor do files that only refuse bad values. So a new message in
them retrains nothing. A stamp also leaves out the code of the artifacts that its stage opens, or a
comment in an encoder would retrain all its policies: that code made the artifact's bytes (an
exported program, a picture of maps), on which the stage depends. A committed encoder is in the
stamps of its policies, since no stage makes it. A change that no artifact shows, such as one of an
error cache, needs `dvc repro -f`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.annotation.click_file import CLICKS
from datasets.files import sha256_file
from pipeline.config.tables import COMMITTED, TABLES, Entry

PACKAGES = ("datasets", "pretrain", "rl", "pipeline")
CODE = Path(__file__).parents[2]
PLUMBING = frozenset(
    f"{name}.py"
    for name in (
        "datasets/checked",
        "datasets/errors",
        "pipeline/__init__",
        "pipeline/config/closure",
        "pipeline/config/tables",
        "pipeline/config/typed",
        "pipeline/config/yaml_file",
        "pipeline/params",
        "pipeline/runtime/artifact",
        "pipeline/runtime/cluster",
        "pipeline/runtime/job",
        "pipeline/runtime/parallel",
        "pipeline/runtime/process",
        "pipeline/runtime/progress",
        "pipeline/runtime/record",
        "pipeline/runtime/stage",
        "pipeline/runtime/travel",
    )
)
# The learner of `source: replay`, imported by pipeline/collect.py by name.
LEARNER = ("pipeline.parts.learner", "rl.nets.vector")
# Exams of a policy, and labels by it, run this; pipeline/parts/sources.py imports it by name, too.
WATCHED = "pipeline.parts.watched"
ACTING = "pipeline.parts.acting"  # of exams alone, imported by name in pipeline/exam.py


def stamp(stage: str, entry: Entry | None = None, also: Iterable[str] = ()) -> str:
    """A line `sha256 path` for each file that decides the result of a stage on an entry.

    Click files are included: like code, they are written beforehand and committed. `also` are
    further modules.
    """
    modules = components(entry) if entry else []
    lines = [
        f"{sha256_file(CODE / path)} {path.as_posix()}"
        for path in files([module_of(stage), *modules, *also], CODE)
    ]
    if entry and entry.table == "annotations":
        clicks = sorted((CLICKS / entry.keys.frames).glob("[!.]*.json"))
        lines += [f"{sha256_file(path)} {path.as_posix()}" for path in clicks]
    return "".join(f"{line}\n" for line in lines)


def changed_files(code: str) -> list[str]:
    """The files of a stamp that have changed since: code, or clicks of this folder."""
    paths = []
    for line in code.splitlines():
        digest, path = line.split(" ", 1)
        place = Path(path) if CLICKS in Path(path).parents else CODE / path
        if not place.is_file() or sha256_file(place) != digest:
            paths.append(path)
    return paths


def files(roots: Iterable[str], base: Path) -> list[Path]:
    """Every file of ours that importing these modules runs, except PLUMBING, relative to `base`.

    A file with only a docstring runs nothing, such as most packages' `__init__.py`. Imports inside
    functions count too. A component's file is imported by name at run time, so the components are
    roots too (`components`).
    """
    paths: set[Path] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        for path in _paths(name, base):
            if path not in paths and path.as_posix() not in PLUMBING:
                paths.add(path)
                todo += _imports((base / path).read_text(encoding="utf-8"), path)
    return sorted(path for path in paths if _runs((base / path).read_text(encoding="utf-8")))


def module_of(stage: str) -> str:
    """`train` -> `pipeline.train`; commands are in pipeline/commands/."""
    commands = (CODE / "pipeline" / "commands" / f"{stage}.py").is_file()
    return f"pipeline.commands.{stage}" if commands else f"pipeline.{stage}"


def components(entry: Entry) -> list[str]:
    """The modules that an entry names."""
    keys, rules = entry.resolved(), TABLES[entry.table]
    modules = []
    if rules.component:
        modules.append(f"{rules.package}.{keys[rules.component]}")
    if entry.net:
        modules.append(f"rl.nets.{entry.net.name}")
    if "env" in keys:
        modules.append(f"datasets.envs.{keys['env'].split('/')[0]}")
    if keys.get("encoder") in COMMITTED:
        modules.append(f"pretrain.encoders.{keys['encoder']}")
    if keys.get("source") == "replay":
        modules += LEARNER
    if keys.get("by", "").startswith("policies/"):
        modules += [WATCHED, ACTING] if entry.table == "exams" else [WATCHED]
    return modules


def modules_of(header: Mapping[str, Any]) -> list[str]:
    """The modules of the encoder, the predictor or the policy that an artifact's `config.json`
    names, and of the source of saliency in it.
    """
    modules = []
    if "model" in header:  # in one of the two packages
        modules += [f"pretrain.{kind}.{header['model']}" for kind in ("encoders", "saliency")]
    for key, package in (("agent", "rl.agents"), ("net", "rl.nets")):
        if isinstance(header.get(key), Mapping):
            modules.append(f"{package}.{header[key].get('name')}")
    for part in header.values():
        modules += modules_of(part) if isinstance(part, Mapping) else []
    return modules


def _paths(module: str, base: Path) -> list[Path]:
    """`rl.agents.rainbow` -> its file and the `__init__.py` of each package on the way."""
    parts = module.split(".")
    if parts[0] not in PACKAGES:
        return []
    inits = [Path(*parts[:n]) / "__init__.py" for n in range(1, len(parts) + 1)]
    return [p for p in [*inits, Path(*parts).with_suffix(".py")] if (base / p).is_file()]


@functools.lru_cache(maxsize=512)
def _parse(source: str) -> ast.Module:
    return ast.parse(source)


def _runs(source: str) -> bool:
    """Whether a file has more than a docstring."""
    body = _parse(source).body
    return any(not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)) for n in body)


@functools.lru_cache(maxsize=512)
def _imports(source: str, path: Path) -> list[str]:
    """Names a file imports; `from a import b` counts as `a` and `a.b`, which may be a module."""
    names: list[str] = []
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.parts[: -node.level]) if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names
