"""An artifact is whole or not there; damage is named with its file and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from pipeline.runtime import artifact


def publish(tmp_path: Path, content: bytes = b"frames") -> Path:
    work = tmp_path / "work"
    (work / "seed-0").mkdir(parents=True)
    (work / "seed-0" / "data.bin").write_bytes(content)
    artifact.seal(work, "frames/x", entry={"count": 1}, inputs={}, metrics={"frames": 1})
    artifact.publish(work, "frames/x", tmp_path)
    return tmp_path / "frames" / "x"


def test_what_was_published_opens(tmp_path: Path) -> None:
    publish(tmp_path)
    opened = artifact.open_artifact("frames/x", tmp_path)
    assert set(opened.files) == {"README.md", "seed-0/data.bin"}
    assert opened.manifest["entry"] == {"count": 1}
    assert "torch" in opened.manifest["versions"]


def test_what_a_killed_write_left_is_not_sealed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / ".shard.tar.tmp").write_bytes(b"half")
    artifact.seal(work, "frames/x", entry={}, inputs={}, metrics={})
    assert [path.name for path in sorted(work.iterdir())] == ["README.md", "manifest.json"]


def test_same_content_same_digest_and_other_content_another(tmp_path: Path) -> None:
    digests = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        publish(tmp_path / name, content)
        digests.append(artifact.open_artifact("frames/x", tmp_path / name).digest)
    assert digests[0] == digests[1] != digests[2]


def test_publishing_again_replaces(tmp_path: Path) -> None:
    publish(tmp_path, b"1")
    folder = publish(tmp_path, b"2")
    assert (folder / "seed-0" / "data.bin").read_bytes() == b"2"
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "work.old").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "format", "outside"])
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    folder = publish(tmp_path)
    data, manifest = folder / "seed-0" / "data.bin", folder / "manifest.json"
    if damage == "flip":
        data.write_bytes(b"fraMes")
    elif damage == "truncate":
        data.write_bytes(b"fra")
    elif damage == "remove":
        data.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        written = json.loads(manifest.read_text())
        if damage == "format":
            written["format"] = "other/1"
        else:
            written["files"]["../../secret"] = "0"
        manifest.write_text(json.dumps(written))
    with pytest.raises(FoveaError, match=r"(data\.bin|manifest\.json).*dvc repro -f collect@x"):
        artifact.open_artifact("frames/x", tmp_path)


@pytest.mark.parametrize("label", ["drawer", "frames", "frames/", "frame/drawer"])
def test_a_name_without_a_table_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match=rf"{label}: names no artifact; write its table too"):
        artifact.open_artifact(label, tmp_path)


def test_a_missing_artifact_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="dvc repro pretrain@frostbite-mae"):
        artifact.open_artifact("encoders/frostbite-mae", tmp_path)
