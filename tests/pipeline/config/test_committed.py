"""The encoders that no stage makes are what today's code would write, and open as any artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasets.files import sha256_file
from datasets.sealed import MANIFEST, write_manifest
from pipeline.config.tables import COMMITTED, committed, component
from pipeline.runtime import artifact
from pretrain.frozen import save_encoder


def write(name: str, folder: Path) -> None:
    """The artifact of a committed encoder; no version of anything changes it."""
    module: Any = component("pretrain.encoders", name)
    save_encoder(module.Encoder(module.Config(), module.Features(), None), folder)
    manifest = {
        "format": artifact.FORMAT,
        "table": "encoders",
        "name": name,
        "entry": committed(name).resolved(),
        "inputs": {},
        "versions": {},
        "metrics": {"frames": 0, "parameters": 0},
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
    }
    write_manifest(folder / MANIFEST, manifest)


@pytest.mark.parametrize("name", COMMITTED)
def test_what_is_committed_is_what_would_be_written(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    folder = artifact.CODE / artifact.ROOT / "encoders" / name
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.parametrize("name", COMMITTED)
def test_it_opens_from_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = artifact.open_artifact(f"encoders/{name}")
    assert opened.manifest["entry"]["model"] == name
    assert artifact.lineage(f"encoders/{name}").keys() == {f"encoders/{name}"}
