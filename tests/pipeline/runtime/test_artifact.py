"""An artifact is complete or absent; damage is named with its file and the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from datasets.sealed import read_manifest, write_manifest
from pipeline.runtime import artifact


def publish(tmp_path: Path, content: bytes = b"frames") -> Path:
    work = tmp_path / "work"
    (work / "seed-0").mkdir(parents=True)
    (work / "seed-0" / "data.bin").write_bytes(content)
    artifact.seal(work, "frames/x", entry={"count": 1}, inputs={}, metrics={"frames": 1})
    artifact.publish(work, "frames/x", tmp_path)
    return tmp_path / "frames" / "x"


def test_a_published_artifact_opens(tmp_path: Path) -> None:
    publish(tmp_path)
    opened = artifact.open_artifact("frames/x", tmp_path)
    assert set(opened.files) == {"README.md", "seed-0/data.bin"}
    assert opened.manifest["entry"] == {"count": 1}
    assert "torch" in opened.manifest["versions"]


def test_bytecode_of_an_encoders_own_module_is_no_damage(tmp_path: Path) -> None:
    """Python writes it beside the module when a user imports that."""
    folder = publish(tmp_path)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "fovea_encoder.cpython-311.pyc").write_bytes(b"")
    artifact.open_artifact("frames/x", tmp_path)
    (folder / "seed-0" / "__pycache__").mkdir()
    (folder / "seed-0" / "__pycache__" / "x.pyc").write_bytes(b"")
    with pytest.raises(FoveaError, match="not in the artifact's manifest"):
        artifact.open_artifact("frames/x", tmp_path)


def test_the_card_states_how_images_are_made(tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text('{"frame_skip": 4, "resize": "INTER_AREA"}')
    artifact.seal(tmp_path, "encoders/x", entry={}, inputs={}, metrics={})
    card = (tmp_path / "README.md").read_text()
    assert "## Images" in card and "| frame_skip | `4` |" in card
    assert "| resize | `INTER_AREA` |" in card


def test_files_of_a_killed_write_are_not_sealed(tmp_path: Path) -> None:
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


def test_published_files_outlive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also files that libraries wrote without flushing, and the folders' entries."""
    flushed: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda file: flushed.add(os.fstat(file).st_ino))
    folder = publish(tmp_path)
    assert {path.stat().st_ino for path in (folder.parent, folder, *folder.rglob("*"))} <= flushed


def rewrite(folder: Path, **changes: object) -> None:
    """Write the manifest with other values and a digest that matches them."""
    manifest = read_manifest(folder / "manifest.json")
    write_manifest(folder / "manifest.json", manifest | changes)


def link_out(folder: Path) -> None:
    (folder / "seed-1").symlink_to("/etc")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flip": (lambda f: (f / "seed-0/data.bin").write_bytes(b"fraMes"), "data.bin: not the bytes"),
    "truncate": (lambda f: (f / "seed-0/data.bin").write_bytes(b"fra"), "data.bin: not the bytes"),
    "remove": (lambda f: (f / "seed-0/data.bin").unlink(), "data.bin: missing"),
    "planted": (lambda f: (f / "seed-0/failed.json").touch(), "failed.json: not in the artifact's"),
    "planted link": (link_out, "seed-1: not in the artifact's"),
    "cut manifest": (lambda f: (f / "manifest.json").write_text("{"), "not readable as JSON"),
    "format": (lambda f: rewrite(f, format="other/1"), "format 'other/1'"),
    "another's": (lambda f: rewrite(f, name="y"), "manifest of 'frames/y', not of frames/x"),
    "no inputs": (lambda f: rewrite(f, inputs=None), "inputs None, must be a dict"),
    "outside": (
        lambda f: rewrite(f, files={"../../secret": "0"}),
        "'../../secret' is not the name of a file",
    ),
    "long name": (lambda f: rewrite(f, files={"a" * 100_000: "0"}), "is not the name of a file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(tmp_path: Path, damage: str) -> None:
    folder = publish(tmp_path)
    spoil, says = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(FoveaError, match=f"{re.escape(says)}.*dvc repro -fs collect@x") as caught:
        artifact.open_artifact("frames/x", tmp_path)
    assert len(str(caught.value)) < 600 and str(folder) in str(caught.value)


def test_one_changed_value_of_a_manifest_is_refused(tmp_path: Path) -> None:
    manifest = publish(tmp_path) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"frames": 1', '"frames": 3'))
    with pytest.raises(FoveaError, match=r"manifest\.json: does not match the SHA-256 in it"):
        artifact.open_artifact("frames/x", tmp_path)


def test_damage_that_dvc_s_cache_shares_is_named_with_its_remedy(tmp_path: Path) -> None:
    for link in ("hard", "symbolic"):
        data, cached = publish(tmp_path) / "seed-0" / "data.bin", tmp_path / f"{link}-cached"
        data.write_bytes(b"fraMes")
        if link == "hard":
            cached.hardlink_to(data)
        else:
            data.rename(cached)
            data.symlink_to(cached)
        with pytest.raises(FoveaError, match=r"find -L .* -samefile \S+ -delete`.*repro -fs"):
            artifact.open_artifact("frames/x", tmp_path)


@pytest.mark.parametrize("label", ["drawer", "frames", "frames/", "frame/drawer"])
def test_a_name_without_a_table_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match=rf"{label}: must name an artifact with its table"):
        artifact.open_artifact(label, tmp_path)


def test_a_missing_artifact_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(FoveaError, match="dvc repro pretrain@frostbite-mae"):
        artifact.open_artifact("encoders/frostbite-mae", tmp_path)
