"""Bad input, stage by stage: a non-zero exit, one message that names the file or key and the
remedy, nothing half-published, and earlier artifacts unchanged.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets.files import sha256_file
from datasets.sealed import read_manifest, write_manifest
from pipeline.runtime.artifact import open_artifact
from pretrain.encoders import mae
from pretrain.frozen import save_encoder
from tests.pipeline.conftest import CODE, Project

SHARD = Path("frames/breakout/000-00000.tar")
WEIGHTS = Path("encoders/breakout-mae/model.safetensors")
KEY = "000-00000000.npz"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a project except stamps, progress, records and caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".code", ".work", ".runs", ".errors"} & set(path.parts)
    }


def message_of(output: str) -> str:
    """The one message of a failed stage."""
    assert "Traceback" not in output and "Exception" not in output, output
    lines = output.splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("error:")]
    assert len(begins) == 1, output
    return "\n".join(lines[begins[0] :])


class Warm:
    """Runs stages in processes forked from one that has imported the libraries."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WARM],
            env=os.environ | {"PYTHONPATH": str(CODE), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, project: Project, stage: str, name: str, limit: int = 0) -> tuple[int, str]:
        """Exit status and output; files are limited to `limit` bytes if it isn't 0."""
        assert self.process.stdin is not None and self.process.stdout is not None
        output = project.folder / "output"
        arguments = [str(project.folder), str(output), f"pipeline.{stage}", name, limit]
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        text = output.read_text()
        output.unlink()
        return code, text


WARM = """
import json, os, resource, runpy, sys
import pipeline.runtime.parallel, pipeline.parts.policies, pipeline.runtime.stage
import pretrain.figures, pretrain.trainer
import pretrain.encoders.mae, pretrain.encoders.pixels, pretrain.frozen, rl.off_policy
import rl.agents.rainbow
for line in sys.stdin:
    folder, output, module, name, limit = json.loads(line)
    child = os.fork()
    if not child:
        file = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        os.chdir(folder)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = [module, name]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.process.communicate("")


def refused(warm: Warm, project: Project, stage: str, name: str, *says: str) -> None:
    """The stage fails with one message that has all of `says`, and changes nothing."""
    before = content(project.folder)
    code, output = warm.run(project, stage, name)
    assert code == 1, output
    message = message_of(output)
    for words in says:
        assert words in message, message
    assert content(project.folder) == before


# params.yaml


@dataclass(frozen=True)
class Slip:
    """An edit of params.yaml, and the parts of the message."""

    old: str
    new: str
    says: tuple[str, ...]
    stage: tuple[str, str] = ("pretrain", "breakout-mae")


SLIPS = {
    "unknown game": Slip(
        "atari/Breakout, source",
        "atari/Brekout, source",
        ("frames.breakout.env", "did you mean", "Breakout"),
    ),
    "unknown suite": Slip(
        "atari/Breakout, source",
        "atarri/Breakout, source",
        ("frames.breakout.env", "'atarri'", "atari"),
    ),
    "entry that is not there": Slip(
        "by: encoders/breakout-mae",
        "by: encoders/breakout-mea",
        ("saliency.breakout-error.by", "breakout-mae"),
    ),
    "name that is not there": Slip(
        "seeds: 1",
        "seeds: 1",
        ("no entry 'braekout'", "did you mean 'breakout'"),
        ("collect", "braekout"),
    ),
    "missing key": Slip("count: 96, ", "", ("frames.breakout.count: missing", "int")),
    "unknown key": Slip("epochs: 8", "epohcs: 8", ("epohcs: unknown key", "did you mean 'epochs'")),
    "wrong type": Slip("count: 96", "count: '96'", ("frames.breakout.count: '96' (str)", "int")),
    "not YAML": Slip("saliency:\n", "saliency: {\n", ("params.yaml: not valid YAML",)),
    "patch that does not divide": Slip(
        "patch: 16", "patch: 7", ("encoders.breakout-mae.patch: 7", "divide")
    ),
    "nothing selected": Slip(
        "patch: 16", "patch: 16, features: {max_ratio: 0}",
        ("encoders.breakout-mae.features.max_ratio: 0", "above 0"),
    ),
    "nothing selected by a policy": Slip(
        "steps: 160", "features: {max_ratio: 0}, steps: 160",
        ("policies.breakout-spirl.features.max_ratio: 0", "above 0"),
        ("train", "breakout-spirl"),
    ),
    "too little selected": Slip(
        "patch: 16", "patch: 16, features: {max_ratio: 0.01}",
        ("encoders.breakout-mae.features.max_ratio: 0.01", "is less than one"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_in_params(warm: Warm, on_built: Project, name: str) -> None:
    slip = SLIPS[name]
    on_built.edit(slip.old, slip.new)
    refused(warm, on_built, *slip.stage, "params.yaml", *slip.says)


def test_an_input_that_is_not_built(warm: Warm, project: Project) -> None:
    refused(
        warm,
        project,
        "train",
        "breakout-spirl",
        "artifacts/encoders/breakout-mae",
        "dvc repro pretrain@breakout",
    )
    assert [path.name for path in project.artifacts.iterdir()] == [".code"], "something was begun"


# Damaged artifacts


def reseal(project: Project, file: Path) -> None:
    """Write the manifest again for a changed file, like an attacker."""
    folder = project.artifacts.joinpath(*file.parts[:2])
    manifest = read_manifest(folder / "manifest.json")
    manifest["files"][file.relative_to(*file.parts[:2]).name] = sha256_file(
        project.artifacts / file
    )
    write_manifest(folder / "manifest.json", manifest)


def flip(data: bytes) -> bytes:
    """The data with one bit changed, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def tar_of(name: str, *, claims: int = 0, **attributes: object) -> bytes:
    """A tar of one empty member."""
    entry = tarfile.TarInfo(name)
    entry.size = claims
    for key, value in attributes.items():
        setattr(entry, key, value)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(entry, io.BytesIO(bytes(0)) if not claims else None)
    return buffer.getvalue()


@dataclass(frozen=True)
class Damage:
    """A change of a file of an artifact, the stage that reads it, and the parts of the message."""

    file: Path
    spoil: Callable[[bytes], bytes]
    resealed: bool
    says: tuple[str, ...]


CHECKOUT = ("not the bytes that the manifest lists", "dvc checkout", "dvc repro -fs")
AGAIN = ("build it again",)
DAMAGES = {
    "truncated shard": Damage(SHARD, half, False, CHECKOUT),
    "flipped bit in a shard": Damage(SHARD, flip, False, CHECKOUT),
    "truncated weights": Damage(WEIGHTS, half, False, CHECKOUT),
    "truncated shard, resealed": Damage(SHARD, half, True, ("end of the archive", *AGAIN)),
    "flipped bit in a shard, resealed": Damage(SHARD, flip, True, ("damaged", *AGAIN)),
    "member outside its folder": Damage(
        SHARD, lambda _: tar_of(f"../{KEY}"), True, ("is not named like", *AGAIN)
    ),
    "member that is a symlink": Damage(
        SHARD,
        lambda _: tar_of(KEY, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        True,
        ("is not a regular file", *AGAIN),
    ),
    "member that claims 10 GB": Damage(
        SHARD, lambda _: tar_of(KEY, claims=10 << 30), True, ("claims 10737418240 bytes", *AGAIN)
    ),
    "truncated weights, resealed": Damage(
        WEIGHTS, half, True, ("not readable as safetensors", "build the artifact again")
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_input(warm: Warm, on_built: Project, name: str) -> None:
    damage, path = DAMAGES[name], on_built.artifacts / DAMAGES[name].file
    path.write_bytes(damage.spoil(path.read_bytes()))
    if damage.resealed:
        reseal(on_built, damage.file)
    reader = ("pretrain", "breakout-mae") if damage.file == SHARD else ("train", "breakout-spirl")
    refused(warm, on_built, *reader, f"artifacts/{damage.file}", *damage.says)


def test_an_encoder_of_another_image_size(warm: Warm, on_built: Project) -> None:
    """Its files agree with each other and with the manifest; only the environment doesn't fit."""
    other = mae.Pretraining(mae.Config(patch=16), (3, 48, 48)).encoder()
    save_encoder(other, on_built.artifacts / "encoders/breakout-mae")
    for name in ("model.safetensors", "config.json"):
        file = WEIGHTS.with_name(name)
        reseal(on_built, file)
    says = ("encoder", "(3, 48, 48)", "(3, 96, 96)", "use an encoder pretrained on frames of")
    refused(warm, on_built, "train", "breakout-spirl", *says)


# A full disk


@pytest.fixture
def mounted(on_built: Project) -> Iterator[bool]:
    """artifacts/ on a small disk, if mounting is allowed; False if it isn't."""
    aside = on_built.folder / "aside"
    on_built.artifacts.rename(aside)
    on_built.artifacts.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "fovea-test", str(on_built.artifacts)]
    done = subprocess.run(command, capture_output=True, check=False)
    shutil.copytree(aside, on_built.artifacts, dirs_exist_ok=True)
    shutil.rmtree(aside)
    yield done.returncode == 0
    if done.returncode == 0:
        subprocess.run(["umount", str(on_built.artifacts)], check=True)


FULL = [
    ("collect", "breakout", 0),  # nothing at all can be written
    ("collect", "breakout", 30),  # a stream's shard
    ("pretrain", "breakout-mae", 1_500),  # the checkpoint
    ("label", "breakout-error", 0),  # a shard of maps
    ("label", "breakout-error", 100),  # the copy of the source
    ("train", "breakout-spirl", 100),  # a seed's weights
    ("train", "breakout-spirl", 7_000),  # the copy of the seed's folder
]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name", "left"), FULL)
def test_a_full_disk(
    warm: Warm, on_built: Project, mounted: bool, stage: str, name: str, left: int
) -> None:
    """With `left` kB left, the stage stops in a different place each time; with space it resumes.

    Without permission to mount a disk, files are limited to a few kB instead.
    """
    filler, before = on_built.artifacts / "filler", content(on_built.folder)
    if mounted:
        filler.write_bytes(bytes(shutil.disk_usage(on_built.artifacts).free - 1024 * left))
    code, output = warm.run(on_built, stage, name, 0 if mounted else 1024 * min(left + 4, 16))
    filler.unlink(missing_ok=True)
    assert code == 1, output
    message = message_of(output)
    assert "artifacts/" in message and "free some space" in message, message
    assert content(on_built.folder) == before
    code, output = warm.run(on_built, stage, name)
    assert code == 0, output


# Two at once


def wait_for(project: Project, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not list(project.artifacts.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_same_entry_twice_at_once(project: Project) -> None:
    """The second is refused, the first is not affected."""
    project.edit("count: 96", "count: 4000")
    first = project.start("collect", "breakout")
    wait_for(project, ".work/collect-breakout-*/out", first)
    first.send_signal(signal.SIGSTOP)  # or it might be done before the second has begun
    code, output = project.run("collect", "breakout")
    first.send_signal(signal.SIGCONT)
    assert code == 1, output
    assert "another process is at work on it; wait for it, or stop it" in message_of(output)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert open_artifact("frames/breakout", project.artifacts).manifest["metrics"]["frames"] == 4000
    assert not list(project.artifacts.glob(".work/collect-breakout-*/out"))


@pytest.mark.slow
def test_two_dvc_repro_at_once(committed: Project, project: Project) -> None:
    """DVC, or we, refuse the second; the first is not affected, and DVC then has its work."""
    tables = (project.folder / "params.yaml").read_text().replace("count: 96", "count: 4000")
    shutil.copytree(committed.folder, project.folder, dirs_exist_ok=True, symlinks=True)
    (project.folder / "params.yaml").write_text(tables)
    before = content(project.artifacts)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def dvc(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=project.folder,
            env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = dvc("repro", "collect@breakout")
    wait_for(project, ".work/collect-breakout-*/out", first)
    first.send_signal(signal.SIGSTOP)  # or it might be done before the second has begun
    second = dvc("repro", "collect@breakout")
    output, _ = second.communicate(timeout=120)
    first.send_signal(signal.SIGCONT)
    assert second.returncode != 0, output
    assert "Traceback" not in output, output
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert open_artifact("frames/breakout", project.artifacts).manifest["metrics"]["frames"] == 4000
    after = content(project.artifacts)
    assert {name: after.get(name) for name in before} == before, "an older artifact was lost"
    status = dvc("status", "collect@breakout")
    output, _ = status.communicate(timeout=60)
    assert "up to date" in output, output
