"""`python -m pipeline.commands.clicks`, and the stage that makes maps from its click files."""

from __future__ import annotations

import functools
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from datasets.annotation.choice import order
from datasets.annotation.click_file import read_clicks, write_clicks
from datasets.frame import Frame
from datasets.saliency import read_saliency
from datasets.shards import read_frames, write_shard
from pipeline.commands import clicks
from pipeline.runtime.artifact import Artifact, open_artifact, publish, seal
from pipeline.runtime.stage import inherit_simulated
from tests.datasets.test_click_server import served
from tests.pipeline.commands.clicking import click, fresh, saved
from tests.pipeline.conftest import Project
from tests.pipeline.test_faults import Warm

SIMULATED: dict[str, object] = {"simulated_clicks": True}
PARAMS = """
frames:
  reach: {env: metaworld/reach, source: random, count: 20}
annotations:
  reach: {frames: reach, annotator: human, count: 3}
  reach-simulated: {frames: reach, annotator: simulated, count: 3}
predictors: {}
saliency: {}
encoders: {}
policies: {}
exams: {}
"""


@pytest.fixture
def reach(tmp_path: Path) -> Project:
    """A project with frames that need no simulation."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    out, project = tmp_path / "out", Project(tmp_path)
    out.mkdir()
    points = np.array([[20, 20], [40, 20], [30, 50]], np.float32)
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    frames = [Frame(image, np.zeros(4, np.float32), 0.0, False, False, 0, n, {"points": points})
              for n, image in enumerate(noise)]  # fmt: skip
    write_shard(out / "000-00000.tar", frames, stream=0, start=0)
    seal(out, "frames/reach", entry={"env": "metaworld/reach"}, inputs={}, metrics={})
    publish(out, "frames/reach", project.artifacts)
    return project


def run_clicks(project: Project, monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit status of `python -m pipeline.commands.clicks`: None, or its message."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr("sys.argv", ["clicks", *words])
    try:
        clicks.main()
    except SystemExit as error:
        return error.code
    return None


@pytest.mark.slow
def test_from_no_clicks_to_maps(
    reach: Project, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage names the command for clicks; page and import write them; the stage makes their
    maps.
    """
    warm = Warm()
    code, message = warm.run(reach, "annotate", "reach")
    assert code == 1 and "datasets/clicks/reach: none of 3 frames have clicks" in message, message
    assert "`make annotate NAME=" in message and not (reach.artifacts / "annotations").exists()
    process = reach.start("commands.clicks", "reach", "--as", "alice")
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    with fresh(browser) as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("h1")).to_have_text("reach")
        expect(page.locator("#who")).to_have_text("alice")
        for _ in range(3):
            click(page, 100, 100)
            page.keyboard.press("ArrowRight")
        saved(page)
        expect(page.locator("#hint")).to_contain_text("Every frame has clicks")
        page.keyboard.press("Home")
        page.keyboard.press("x")
        expect(page.locator("#hint")).not_to_contain_text("Every frame")
        page.keyboard.press("z")
        saved(page)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in output
    assert "3 of 3 frames have clicks, in datasets/clicks/reach/alice.json" in output
    theirs = of_heatmap_js(reach, 3)
    assert run_clicks(reach, monkeypatch, "reach", "--as", "bob", "--import", theirs) is None
    code, message = warm.run(reach, "annotate", "reach")
    assert code == 0, message
    artifact = open_artifact("annotations/reach", reach.artifacts)
    assert artifact.manifest["metrics"] == {
        "frames": 3, "simulated_clicks": False, "annotators": "alice, bob", "clicks_per_frame": 1.5
    }  # fmt: skip
    frames = read_frames(reach.artifacts / "frames/reach")
    maps = read_saliency(artifact.folder, frames, artifact.files)[1]
    assert maps.shape == (3, 64, 64) and (maps.max((1, 2)) == 255).all()  # each is alone there
    assert (maps[:, 16, 16] > 220).all() and (maps[:, 48, 48] > 220).all()
    assert len(json.loads((artifact.folder / "clicks.json").read_text())["bob"]) == 3
    code, message = warm.run(reach, "annotate", "reach-simulated")
    assert code == 0, message
    metrics = open_artifact("annotations/reach-simulated", reach.artifacts).manifest["metrics"]
    assert metrics["simulated_clicks"] and metrics["annotators"] == "simulated"
    warm.process.communicate("")


def test_simulated_clicks_are_marked_in_all_that_depends_on_them() -> None:
    def artifact(metrics: dict[str, object]) -> Artifact:
        return Artifact("frames/x", Path(), {"metrics": metrics}, "")

    plain, people, simulated = (
        artifact({}),
        artifact({"simulated_clicks": False}),
        artifact(SIMULATED),
    )
    assert inherit_simulated({"mean": 1}, [plain, people]) == {"mean": 1}
    assert inherit_simulated({"mean": 1}, [plain, simulated]) == {"mean": 1} | SIMULATED
    assert inherit_simulated({"simulated_clicks": False}, [simulated]) == SIMULATED


def of_heatmap_js(project: Project, count: int) -> str:
    """A folder as the authors' tool writes it: two clicks on one point in each frame."""
    folder = project.folder / "theirs"
    folder.mkdir()
    data = {"min": 0, "max": 2, "data": [{"x": 300, "y": 300, "value": 2, "radius": 25}]}
    for number in range(count):
        (folder / f"annotations_{number:03d}.txt").write_text(json.dumps(data))
    return str(folder)


def test_frames_are_exported_for_another_tool(
    reach: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images with the numbers of the import: the frames of the page in its order."""
    assert run_clicks(reach, monkeypatch, "reach", "--as", "bob", "--export", "pictures") is None
    frames = read_frames(reach.artifacts / "frames/reach")
    first_frames = order(frames, 0)[:3]
    pictures = sorted((reach.folder / "pictures").iterdir())
    assert [path.name for path in pictures] == ["000.png", "001.png", "002.png"]
    for path, index in zip(pictures, first_frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), frames.images[index])


def test_without_a_name_the_entries_are_listed(
    reach: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(make annotate NAME=…): reach, reach-simulated" in str(run_clicks(reach, monkeypatch))


def test_bad_names_ports_and_imports_are_refused(
    reach: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one message; existing clicks are never overwritten."""
    ask, theirs = functools.partial(run_clicks, reach, monkeypatch), of_heatmap_js(reach, 3)
    assert ask("reach", "--as", "authors", "--import", theirs) is None
    path = reach.folder / "datasets/clicks/reach/authors.json"
    before = path.read_bytes()
    with served(reach.folder / "other" / "alice.json") as other:
        for words, says in (
            (
                ("reach", "--as", "authors", "--import", theirs),
                "authors.json: exists already; import as another annotator (--as ",
            ),
            (("reach", "--as", "others", "--import", "gone"), "gone: no annotations_NNN"),
            (
                ("reach", "--as", "../others"),
                "a name consists of a-z, 0-9 and '-'; choose one with --as ",
            ),
            (("raech", "--as", "alice"), "no entry 'raech' in annotations; did you mean 'reach'"),
            (("reach", "--as", "alice", "--port", str(other.port)), "Address already in use"),
        ):
            assert says in str(ask(*words)), words
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0123456789ab')[:-10])
    assert "authors.json: damaged or not a click file" in str(ask("reach", "--as", "authors"))
    path.write_bytes(before)
    others = {key: replace(one, sha256="0" * 64) for key, one in read_clicks(path).items()}
    write_clicks(path, others)
    assert "are of another image" in str(ask("reach", "--as", "authors"))
    (reach.artifacts / "frames/reach/manifest.json").unlink()
    assert "dvc repro collect@reach" in str(ask("reach", "--as", "alice"))
