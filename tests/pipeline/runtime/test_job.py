"""A task in a node's folder: what arrives there, what leaves, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasets.errors import FoveaError
from datasets.sealed import is_sound, write_sealed
from pipeline.runtime import artifact, job, travel
from pipeline.runtime.job import Update, unlike
from pipeline.runtime.travel import GROWS, Changes, Input, Parcel, Piece


@dataclass(frozen=True)
class Count:
    """Adds the bytes of an input, one a step, to those that an earlier attempt counted."""

    source: Path
    folder: Path
    stop: int = 1000
    gpu: bool = False

    @property
    def reads(self) -> tuple[Path, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[Path, ...]:
        return (self.folder,)

    def __call__(self, progress: Callable[[int], None]) -> None:
        data = (self.source / "bytes").read_bytes()
        state = self.folder / "state"
        self.folder.mkdir(exist_ok=True)
        step, total = map(int, state.read_text().split()) if is_sound(state) else (0, 0)
        progress(step)
        while step < min(len(data), self.stop):
            step, total = step + 1, total + data[step]
            write_sealed(state, f"{step} {total}".encode())
            progress(1)
        if self.stop < len(data):
            raise RuntimeError("interrupted")
        write_sealed(self.folder / "sum", str(total).encode())
        state.unlink()


def on_node(node: Path, task: Count, begun: Parcel, content: list[Piece]) -> list[Update]:
    digest = travel._digest(content)
    inputs = [(Input(task.source, digest), content)]
    return list(
        job.work(task, inputs, begun, artifact.versions(), get=lambda pieces: pieces, node=node)
    )


def test_a_job_goes_on_elsewhere_from_the_files_that_reached_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "EVERY", 0.0)
    head, data = tmp_path / "head", bytes(range(9))
    (head / "in").mkdir(parents=True)
    (head / "in/bytes").write_bytes(data)
    monkeypatch.chdir(head)
    _, content = travel.read_input(Path("in"))
    places, counted = (Path("work"),), 0
    for node, stop in (("one", 4), ("two", 1000)):
        task = Count(Path("in"), Path("work"), stop)
        updates = on_node(tmp_path / node, task, travel.everything(places), content)
        assert Path.cwd() == head and not list((tmp_path / node / "jobs").iterdir())
        for update in updates:
            travel.write(update.parcel, places)
        counted = sum(update.units for update in updates)
        assert ("interrupted" in updates[-1].trace) == (stop == 4) and updates[-1].ended
    assert counted == len(data)  # those of the other node among them
    assert (head / "work/sum").read_text() == str(sum(data)) and is_sound(head / "work/sum")
    assert not (head / "work/state").exists()


def test_an_input_arrives_once(tmp_path: Path) -> None:
    content = [("in/bytes", 0, b"abc")]
    source, arrivals = Input(Path("in"), travel._digest(content)), []

    def get() -> list[Piece]:
        arrivals.append(1)
        return content

    paths = [travel.fetch(source, tmp_path / "inputs", get) for _ in range(2)]
    assert paths[0] == paths[1] and (paths[0] / "bytes").read_bytes() == b"abc"
    assert len(arrivals) == 1


@pytest.mark.parametrize("name", ["../out", "/out", "in/../../out", "in/\0", ""])
def test_no_name_leads_out_of_an_inputs_folder(tmp_path: Path, name: str) -> None:
    content = [(name, 0, b"abc")]
    source = Input(Path("in"), travel._digest(content))
    with pytest.raises(FoveaError, match="not the name of a file inside"):
        travel.fetch(source, tmp_path / "node/inputs", lambda: content)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_input_with_other_bytes_is_refused(tmp_path: Path) -> None:
    source = Input(Path("in"), travel._digest([("in/bytes", 0, b"abc")]))
    with pytest.raises(FoveaError, match="in: arrived with other bytes"):
        travel.fetch(source, tmp_path, lambda: [("in/bytes", 0, b"abd")])


@pytest.mark.parametrize("name", ["../out", "/etc/x", "seed-1/x", "seed-0", "seed-0.tar", "params"])
def test_a_job_writes_only_to_its_own_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed-0").mkdir()
    for parcel in (Parcel([("seed-0/a", 0, b"a"), (name, 0, b"b")]), Parcel((), [name])):
        if name != "seed-0":
            with pytest.raises(FoveaError, match="nothing of it is written"):
                travel.write(parcel, [Path("seed-0")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_places() -> None:
    shards = Path("out/003-*")
    for name, own in {
        "out/003-00000.tar": True,
        "out/.003-00000.tar.sha256": True,
        "out/0030.tar": False,
        "003-00000.tar": False,
        "out/003-x/y": False,
    }.items():
        assert travel.owns(shards, Path(name)) == own, name
    assert travel.owns(Path("a/b.json"), Path("a/.b.json.sha256"))
    assert not travel.owns(Path("a/seed-1"), Path("a/seed-10/x"))


def test_changes_are_sent_once_logs_by_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path / "node")
    places, log = (Path("a"),), Path("a", f"{GROWS}1.vm")
    changes = Changes(places)
    log.parent.mkdir()
    for step in range(4):
        with log.open("ab") as file:
            file.write(f"point {step}\n".encode())
        write_sealed(Path("a/weights"), hashlib.sha256(bytes(step)).digest())
        write_sealed(Path(f"a/state-{step}"), bytes(8))
        Path(f"a/state-{step - 1}").unlink(missing_ok=True)
        parcel = changes()
        assert changes() == Parcel([], [])
        assert [len(data) for name, _, data in parcel.pieces if GROWS in name] == [8]
        (tmp_path / "head").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "head")
        travel.write(parcel, places)
        monkeypatch.chdir(tmp_path / "node")
        node, head = (
            {path.name: path.read_bytes() for path in (tmp_path / side / "a").iterdir()}
            for side in ("node", "head")
        )
        assert node == head


def test_missing_packages_and_other_versions_are_named() -> None:
    head = {"python": "3.11", "torch": "2.11.0", "timm": "1.0"}
    assert unlike(head, head) == ""
    assert unlike(head, head | {"torch": "absent", "timm": "absent"}).startswith(
        "has no torch, timm; install requirements.lock there"
    )
    other = unlike(head, head | {"python": "3.12", "torch": "2.10.0"})
    assert other.startswith("has python 3.12, here 3.11; torch 2.10.0, here 2.11.0;")
