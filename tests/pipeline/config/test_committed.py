"""The committed encoders are equal to those that today's code writes, and open like any
artifact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datasets.files import sha256_file
from datasets.sealed import MANIFEST, write_manifest
from pipeline.config.tables import COMMITTED, committed_entry, component
from pipeline.runtime import artifact
from pretrain.frozen import save_encoder


def write(name: str, folder: Path) -> None:
    """The artifact of a committed encoder, which depends on no version."""
    module: Any = component("pretrain.encoders", name)
    save_encoder(module.Encoder(module.Config(), module.Features(), None), folder)
    manifest = {
        "format": artifact.FORMAT,
        "table": "encoders",
        "name": name,
        "entry": committed_entry(name).resolved(),
        "inputs": {},
        "versions": {},
        "metrics": {"frames": 0, "parameters": 0},
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
    }
    write_manifest(folder / MANIFEST, manifest)


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_artifact_is_what_the_code_writes(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    folder = artifact.CODE / artifact.ROOT / "encoders" / name
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.parametrize("name", COMMITTED)
def test_it_opens_in_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = artifact.open_artifact(f"encoders/{name}")
    assert opened.manifest["entry"]["model"] == name
    assert artifact.lineage(f"encoders/{name}").keys() == {f"encoders/{name}"}
