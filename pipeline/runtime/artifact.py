"""An artifact is a folder with a manifest: published atomically, checked before use.

`artifacts/<table>/<name>/manifest.json` has the entry with all defaults, the digests of the inputs,
the versions and metrics, and the SHA-256 of every other file and of itself. An artifact's own
digest is its manifest's. Facts that vary from run to run are in `artifacts/.runs/`. So the same
entry, inputs and versions give the same bytes on one kind of processor; another kind rounds sums
differently.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import FoveaError, quoted
from datasets.files import inside, read_json, sha256_file, sync, sync_tree, write_atomic
from datasets.sealed import MANIFEST, check_sealed, drop_digests, read_manifest, write_manifest
from pipeline.config.tables import COMMITTED

Mistake = tuple[Path, str]  # a file, and its mistake

FORMAT = "fovea/1"
IMAGES = "images.json"  # how an encoder's images are made
ROOT = Path("artifacts")
CODE = Path(__file__).parents[2]
KEYS = {  # of a manifest, and their types
    "format": str,
    "table": str,
    "name": str,
    "entry": dict,
    "inputs": dict,
    "versions": dict,
    "metrics": dict,
    "files": dict,
}
# Packages that can change the bytes of an artifact; its manifest has their versions.
PACKAGES = (
    "ale-py",
    "av",
    "gymnasium",
    "lightning",
    "metaworld",
    "mujoco",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
    "webdataset",
)
# Table -> the stage that builds its artifacts.
STAGES = {
    "frames": "collect",
    "annotations": "annotate",
    "predictors": "fit",
    "saliency": "label",
    "encoders": "pretrain",
    "policies": "train",
    "evaluations": "evaluate",
    "exams": "exam",
    "report": "report",
}


@dataclass(frozen=True)
class Artifact:
    """A published artifact whose files match its manifest."""

    label: str  # "frames/frostbite"
    folder: Path
    manifest: dict[str, Any]
    digest: str  # sha256 of the manifest

    @property
    def files(self) -> dict[str, str]:
        """Relative path -> sha256 of every file but the manifest."""
        return dict(self.manifest["files"])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that an artifact's bytes can depend on."""
    result = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            result[package] = "absent"
    return result


def open_artifact(label: str, root: Path = ROOT) -> Artifact:
    """Open `frames/frostbite`, with every file checked against the manifest.

    Raises:
        FoveaError: `label` is invalid; the artifact is missing; a file of it is missing, damaged or
            not listed; or its manifest is another artifact's. The message names the file and the
            command that builds it again.
    """
    table, _, name = label.partition("/")
    if table not in STAGES or not name:
        raise FoveaError(f"{label}: must name an artifact with its table, <table>/<name>")
    of_code = table == "encoders" and name in COMMITTED  # in any working folder
    folder = (CODE / ROOT if of_code else root) / label
    stage = None if of_code else f"{STAGES[table]}@{name}"
    path = folder / MANIFEST
    if not path.exists():
        builds = f"`dvc repro {stage}` builds it" if stage else _remedy(path, folder, None)
        raise FoveaError(f"{folder}: missing; {builds}")
    try:
        manifest = read_manifest(path)
    except FoveaError as error:
        raise FoveaError(f"{error}; {_remedy(path, folder, stage)}") from error
    mistake = _misfit(path, manifest, label) or _file_mistake(path, manifest)
    if mistake:
        file, what = mistake
        raise FoveaError(f"{file}: {what}; {_remedy(file, folder, stage)}")
    return Artifact(label, folder, manifest, sha256_file(path))


def _misfit(path: Path, manifest: Mapping[str, Any], label: str) -> Mistake | None:
    """The reason why the manifest at `path` is not that of the artifact `label`, if any."""
    for key, kind in KEYS.items():
        if not isinstance(manifest.get(key), kind):
            return path, f"{key} {quoted(manifest.get(key))}, must be a {kind.__name__}"
    if manifest["format"] != FORMAT:
        return path, f"format {quoted(manifest['format'])}, not {FORMAT!r}"
    own = f"{manifest['table']}/{manifest['name']}"
    return None if own == label else (path, f"the manifest of {quoted(own)}, not of {label}")


def _file_mistake(path: Path, manifest: Mapping[str, Any]) -> Mistake | None:
    """An invalid file name in the manifest at `path`, or a missing, unlisted or damaged file."""
    folder, files = path.parent, manifest["files"]
    for name in files:
        try:
            if not inside(folder, name).is_file():
                return folder / name, "missing from the artifact"
        except ValueError as error:
            return path, str(error)
    expected = {folder / name for name in files} | {path}
    for file in sorted(folder.rglob("*")):
        if file.parent == folder / "__pycache__":  # of an encoder's own module, by Python
            continue
        if file not in expected and (file.is_symlink() or not file.is_dir()):
            return file, "not in the artifact's manifest, remove it"
    for name, digest in files.items():
        if sha256_file(folder / name) != digest:
            return folder / name, "not the bytes that the manifest lists (damaged)"
    return None


def _remedy(file: Path, folder: Path, stage: str | None) -> str:
    """The commands for a damaged file of the artifact that `stage` builds, or of the code.

    Where the file is also DVC's cached one, by a link, that is damaged too, and DVC would restore
    it over the file that is built again.
    """
    if stage is None:
        return f"`git checkout {folder}` restores it"
    shared = file.is_symlink() or (file.exists() and file.stat().st_nlink > 1)
    if shared:
        first = f"`find -L $(dvc cache dir) -samefile {file} -delete` removes it from DVC's cache"
    else:
        first = f"`rm {file}; dvc checkout {folder}` restores it"
    return f"{first}, `dvc repro -fs {stage}` builds it again"


def lineage(label: str, root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Entry and digest of an artifact and of all its inputs, itself first.

    Raises FoveaError if one was made from another version of an input than the current one.
    """
    parts: dict[str, dict[str, Any]] = {}
    todo: list[tuple[str, Artifact | None]] = [(label, None)]
    while todo:
        name, user = todo.pop(0)
        part = open_artifact(name, root)
        if user and user.manifest["inputs"][name] != part.digest:
            table, entry = user.label.split("/")
            raise FoveaError(
                f"{user.folder}: not made from the current {name}; "
                f"`dvc repro {STAGES[table]}@{entry}` builds it again"
            )
        parts[name] = {"digest": part.digest, "entry": part.manifest["entry"]}
        todo += [(name, part) for name in part.manifest["inputs"]]
    return parts


def seal(
    folder: Path,
    label: str,
    *,
    entry: Mapping[str, Any],
    inputs: Mapping[str, str],
    metrics: Mapping[str, Any],
) -> None:
    """Write the card and the manifest of a finished folder, to which nothing may be added later."""
    for stray in folder.rglob(".*.tmp"):  # of an interrupted write
        stray.unlink()
    check_sealed(folder)  # before new digests are computed
    drop_digests(folder)
    table, name = label.split("/", 1)
    manifest = {
        "format": FORMAT,
        "table": table,
        "name": name,
        "entry": dict(entry),
        "inputs": dict(sorted(inputs.items())),
        "versions": versions(),
        "metrics": dict(metrics),
    }
    images = read_json(folder / IMAGES) if (folder / IMAGES).exists() else {}
    write_atomic(folder / "README.md", _card(manifest | {"images": images}).encode())
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_manifest(folder / MANIFEST, manifest | {"files": files})


def publish(folder: Path, label: str, root: Path = ROOT) -> None:
    """Move a sealed folder to its place with one rename.

    An earlier artifact (of a stage run without DVC) is moved aside before and deleted after that,
    so a reader gets the old one, none, or the new one, never a mixture. If a table's folder is on
    another file system than the work, a copy is renamed there.
    """
    sync_tree(folder)  # images, copies and links are not written by write_atomic
    place, name = root / label, label.rpartition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        _swap(folder, place, folder.with_name(f"{folder.name}.old"))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = place.with_name(f".{name}.tmp")  # a copy on the file system of the place
        shutil.rmtree(near, ignore_errors=True)
        try:
            shutil.copytree(folder, near)
            sync_tree(near)
        except OSError:  # a full disk, of which it would keep a part
            shutil.rmtree(near, ignore_errors=True)
            raise
        _swap(near, place, place.with_name(f".{name}.old"))
        shutil.rmtree(folder)


def _swap(folder: Path, place: Path, aside: Path) -> None:
    """Rename a folder into its place; an earlier one is renamed to `aside` and deleted."""
    shutil.rmtree(aside, ignore_errors=True)
    if place.exists():
        os.replace(place, aside)
    os.replace(folder, place)
    sync(place.parent)  # before the stage's progress is deleted
    shutil.rmtree(aside, ignore_errors=True)


def _card(manifest: Mapping[str, Any]) -> str:
    """The artifact's card: its command, entry, images, inputs, metrics and versions."""
    table, name = manifest["table"], manifest["name"]
    lines = [f"# {table}/{name}", "", f"Built by `python -m pipeline.{STAGES[table]} {name}`.", ""]
    for title in ("entry", "images", "inputs", "metrics", "versions"):
        if manifest[title]:
            lines += [f"## {title.capitalize()}", "", "| key | value |", "|---|---|"]
            lines += [f"| {k} | `{_short(v)}` |" for k, v in manifest[title].items()] + [""]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
