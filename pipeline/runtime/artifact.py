"""An artifact is a folder with a manifest: published whole or not at all, checked before use.

`artifacts/<table>/<name>/manifest.json` holds the entry with all defaults written out, the digests
of the inputs, the versions and metrics, and the SHA-256 of every other file and of itself. An
artifact's own digest is its manifest's. Nothing in it varies from run to run (that is kept in
`artifacts/.runs/`), so the same entry, inputs and versions give the same bytes, on one kind of
processor: on another sums are rounded otherwise.
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
from datasets.files import inside, sha256_file, sync, sync_tree, write_atomic
from datasets.sealed import MANIFEST, check_sealed, drop_digests, read_manifest, write_manifest
from pipeline.config.tables import COMMITTED

FORMAT = "fovea/1"
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
# What can change the bytes of an artifact; a manifest says which of each made it.
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
# The stage that builds a table's artifacts: what to run again when one is missing or damaged.
STAGES = {
    "frames": "collect",
    "annotations": "annotate",
    "predictors": "fit",
    "saliency": "label",
    "encoders": "pretrain",
    "policies": "train",
    "evaluations": "evaluate",
    "report": "report",
}


@dataclass(frozen=True)
class Artifact:
    """A published artifact whose files were found to be as its manifest says."""

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
    installed = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "absent"
    return installed


def open_artifact(label: str, root: Path = ROOT) -> Artifact:
    """Open `frames/frostbite`, every file checked against the manifest.

    Raises:
        FoveaError: the artifact is missing, or a file of it is missing, damaged or not listed;
            names the file and the command that builds it again. Or `label` is none.
            A manifest must be that of `label`.
    """
    table, _, name = label.partition("/")
    if table not in STAGES or not name:
        raise FoveaError(f"{label}: names no artifact; write its table too, <table>/<name>")
    folder, stage = root / label, f"{STAGES[table]}@{name}"
    builds = f"`dvc repro {stage}` builds it"
    again = f"`dvc checkout {folder}` brings it back, `dvc repro -f {stage}` builds it again"
    if table == "encoders" and name in COMMITTED:  # belongs to the code, wherever that works
        folder = CODE / ROOT / label
        builds = again = f"`git checkout {folder}` brings it back"
    path = folder / MANIFEST
    if not path.exists():
        raise FoveaError(f"{folder}: not there yet; {builds}")
    try:
        manifest = read_manifest(path)
    except FoveaError as error:
        raise FoveaError(f"{error}; {again}") from error
    wrong = _misfit(manifest, label) or _unlisted(folder, manifest["files"])
    if wrong:
        raise FoveaError(f"{wrong[0] or path}: {wrong[1]}; {again}")
    for file, digest in manifest["files"].items():
        if sha256_file(folder / file) != digest:
            heals = _heals(folder / file, stage) or again
            raise FoveaError(
                f"{folder / file}: not the bytes the manifest names (damaged); {heals}"
            )
    return Artifact(label, folder, manifest, sha256_file(path))


def _misfit(manifest: Mapping[str, Any], label: str) -> tuple[Path | None, str] | None:
    """What keeps a manifest from being that of the artifact `label`."""
    for key, kind in KEYS.items():
        if not isinstance(manifest.get(key), kind):
            return None, f"{key} {quoted(manifest.get(key))}, must be a {kind.__name__}"
    if manifest["format"] != FORMAT:
        return None, f"format {quoted(manifest['format'])}, not {FORMAT!r}"
    named = f"{manifest['table']}/{manifest['name']}"
    return None if named == label else (None, f"the manifest of {quoted(named)}, not of {label}")


def _unlisted(folder: Path, files: Mapping[str, Any]) -> tuple[Path | None, str] | None:
    """A name that is no file inside its folder, a listed file that is not there, or another."""
    for name in files:
        try:
            if not inside(folder, name).is_file():
                return folder / name, "missing from the artifact"
        except ValueError as error:
            return None, str(error)
    listed = {folder / name for name in files} | {folder / MANIFEST}
    for path in sorted(folder.rglob("*")):
        if path not in listed and (path.is_symlink() or not path.is_dir()):
            return path, "not in the artifact's manifest, remove it"
    return None


def _heals(file: Path, stage: str) -> str:
    """What brings back a file that DVC's cache shares, by a hard link, and has damaged too."""
    if file.stat().st_nlink == 1:
        return ""
    return (
        f"DVC's cache shares it: `find .dvc/cache -samefile {file} -delete` takes it out, "
        f"`dvc repro -f {stage}` builds it again"
    )


def lineage(label: str, root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Entry and digest of an artifact and of all that it was made from, itself first.

    Raises FoveaError where one was made from another version than the one that is there now.
    """
    parts: dict[str, dict[str, Any]] = {}
    todo: list[tuple[str, Artifact | None]] = [(label, None)]
    while todo:
        name, user = todo.pop(0)
        part = open_artifact(name, root)
        if user and user.manifest["inputs"][name] != part.digest:
            table, entry = user.label.split("/")
            raise FoveaError(
                f"{user.folder}: not made from the {name} that is there now; "
                f"`dvc repro {STAGES[table]}@{entry}` builds it anew"
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
    """Write the card and the manifest of a finished folder; nothing may be added afterwards."""
    for stray in folder.rglob(".*.tmp"):  # a write that a kill cut short
        stray.unlink()
    check_sealed(folder)  # before its digests are taken for good ones
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
    write_atomic(folder / "README.md", _card(manifest).encode())
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_manifest(folder / MANIFEST, manifest | {"files": files})


def publish(folder: Path, label: str, root: Path = ROOT) -> None:
    """Put a sealed folder in its place with one rename.

    An artifact that stood there before (a stage run without DVC) is moved aside first and deleted
    after, so a reader finds the old one, none, or the new one, never a mixture. Where a
    table's folder is on another file system than the work, a copy is renamed there.
    """
    sync_tree(folder)  # pictures, copies and links are others' writing
    place, name = root / label, label.rpartition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        _swap(folder, place, folder.with_name(f"{folder.name}.old"))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = place.with_name(f".{name}.tmp")  # a copy on the file system of the place
        shutil.rmtree(near, ignore_errors=True)
        shutil.copytree(folder, near)
        sync_tree(near)
        _swap(near, place, place.with_name(f".{name}.old"))
        shutil.rmtree(folder)


def _swap(folder: Path, place: Path, aside: Path) -> None:
    """Rename a folder into its place, and what was there aside, where it is deleted."""
    shutil.rmtree(aside, ignore_errors=True)
    if place.exists():
        os.replace(place, aside)
    os.replace(folder, place)
    sync(place.parent)  # before the progress behind it goes
    shutil.rmtree(aside, ignore_errors=True)


def _card(manifest: Mapping[str, Any]) -> str:
    """A page for people: what this is, what it was made from, and how to make it again."""
    table, name = manifest["table"], manifest["name"]
    lines = [f"# {table}/{name}", "", f"Built by `python -m pipeline.{STAGES[table]} {name}`.", ""]
    for title in ("entry", "inputs", "metrics", "versions"):
        if manifest[title]:
            lines += [f"## {title.capitalize()}", "", "| key | value |", "|---|---|"]
            lines += [f"| {k} | `{_short(v)}` |" for k, v in manifest[title].items()] + [""]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
