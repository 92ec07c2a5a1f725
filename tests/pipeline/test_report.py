"""The report: its numbers, its notes on missing parts, and the page in a real browser."""

import csv
import functools
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from datasets.errors import FoveaError
from pipeline.parts import charts
from pipeline.parts.charts import number, percent
from pipeline.parts.episodes import Episodes
from pipeline.results import data, html
from pipeline.results.html import data_uri, render
from pipeline.runtime.artifact import open_artifact
from rl.statistics import bootstrap_interval
from tests.pipeline.fake_artifacts import (
    PARAMS,
    build,
    exam,
    manifest,
    picture,
    reseal,
    write_json,
)

REFERENCES = {"source": "A table.", "games": {"Frostbite": {"random": 65.2, "human": 4334.7}}}


@dataclass(frozen=True)
class Report:
    artifacts: Path
    out: Path
    metrics: dict[str, Any]

    @property
    def page(self) -> str:
        return (self.out / "index.html").read_text("utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("report")
    write_json(root / "reference_scores.json", REFERENCES)
    build(root / "artifacts")
    with pytest.MonkeyPatch.context() as patch:
        for module in (data, html):
            patch.setattr(module, "REFERENCES", root / "reference_scores.json")
        metrics = render(PARAMS, root / "artifacts", root / "report")
    return Report(root / "artifacts", root / "report", metrics)


@pytest.fixture
def copied(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """An artifacts tree that a test may change; its intervals are rough, to save time."""
    rough = functools.partial(bootstrap_interval, resamples=20)
    monkeypatch.setattr(data, "bootstrap_interval", rough)
    shutil.copytree(report.artifacts, tmp_path / "artifacts")
    return Report(tmp_path / "artifacts", tmp_path / "report", {})


def test_success_rates_of_environments_with_a_success_signal(copied: Report) -> None:
    """Rates of the last checkpoints, with intervals, a curve, and the random policy's rate."""
    path = copied.artifacts / "evaluations" / "frostbite-spirl" / "evaluation.json"
    value = json.loads(path.read_text("utf-8"))
    value["random"]["successes"] = [False] * 9 + [True]
    for seed in value["seeds"]:
        for index, point in enumerate(seed["checkpoints"]):
            point["successes"] = [True] * (4 * index) + [False] * (10 - 4 * index)
    edit(path, **value)
    metrics = render(PARAMS, copied.artifacts, copied.out)
    values = metrics["frostbite-spirl"]
    assert (values["success"], values["random_success"]) == pytest.approx((0.8, 0.1))
    assert values["success_low"] <= 0.8 <= values["success_high"]
    assert "success" not in metrics["frostbite-der"]
    assert copied.page.count("<dt>Success</dt>") == 1 and "<dd>80\N{NO-BREAK SPACE}%" in copied.page
    assert "Mean success of frostbite-spirl: 0.8 after 3,000 steps" in copied.page
    del value["seeds"][0]["checkpoints"][0]["successes"]
    edit(path, **value)
    with pytest.raises(FoveaError, match=r"evaluation\.json.*run evaluate again"):
        render(PARAMS, copied.artifacts, copied.out)


def edit(path: Path, **changes: object) -> None:
    """Change values of a JSON file in an artifact, and the manifest's digest of it."""
    if path.name == "manifest.json":
        reseal(path.parent, **changes)
    else:
        write_json(path, json.loads(path.read_text("utf-8")) | changes)
        reseal(path.parent)


# Numbers


def test_metrics_are_those_of_the_last_checkpoints(report: Report) -> None:
    folder = report.artifacts / "evaluations" / "frostbite-spirl"
    value = json.loads((folder / "evaluation.json").read_text())
    games = np.array([seed["checkpoints"][-1]["returns"] for seed in value["seeds"]])
    metrics = report.metrics["frostbite-spirl"]
    assert metrics["mean"] == pytest.approx(games.mean())
    assert metrics["iqm"] == pytest.approx(np.sort(games, axis=None)[5:15].mean())
    assert metrics["random"] == pytest.approx(np.mean(value["random"]["returns"]))
    assert metrics["mean_low"] < metrics["mean"] < metrics["mean_high"]
    assert metrics["iqm_low"] <= metrics["iqm"] <= metrics["iqm_high"]
    # The percentile bootstrap of a mean is close to the normal interval, strata kept apart.
    error = np.sqrt(games.var(axis=1).mean() / games.size)
    assert metrics["mean_high"] - metrics["mean_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    counts = {key: metrics[key] for key in ("seeds", "failed_seeds", "episodes", "steps", "smoke")}
    assert counts == {"seeds": 2, "failed_seeds": 0, "episodes": 10, "steps": 3000, "smoke": True}
    scores = json.loads((report.out / "scores/frostbite-spirl.json").read_text())
    assert scores["return"] == pytest.approx(metrics["mean"], rel=1e-3)
    assert (
        scores["return_low"] < scores["return"] < scores["return_high"]
        and scores["smoke_test"] is True
    )


def test_a_failed_seed_counts_as_the_random_policy_and_is_marked(report: Report) -> None:
    folder = report.artifacts / "evaluations" / "frostbite-mae-all"
    value = json.loads((folder / "evaluation.json").read_text())
    games = [seed["checkpoints"][-1]["returns"] for seed in value["seeds"][:2]]
    everything = [*games[0], *games[1], *value["random"]["returns"]]
    metrics = report.metrics["frostbite-mae-all"]
    assert metrics["mean"] == pytest.approx(np.mean(everything))
    assert (metrics["seeds"], metrics["failed_seeds"]) == (3, 1)
    assert "1 of 3 seeds failed" in report.page
    assert "failed: loss is nan at step 1,812 &lt;b&gt;" in report.page


def test_a_seed_that_failed_later_counts_with_its_last_checkpoint() -> None:
    random = np.array([-21.0])
    early = Episodes(0, "nan", (1000,), (np.array([5.0, 7.0]),), random)
    late = Episodes(1, None, (1000, 2000), (np.array([1.0]), np.array([3.0])), random)
    assert [list(seed.final) for seed in (early, late)] == [[5.0, 7.0], [3.0]]
    assert [list(seed.at(1000)) for seed in (early, late)] == [[5.0, 7.0], [1.0]]
    assert [list(seed.at(999)) for seed in (early, late)] == [[-21.0], [-21.0]]


def test_curves_hold_every_checkpoint(report: Report) -> None:
    with (report.out / "curves" / "frostbite-mae-all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1000", "2000", "3000"]
    assert list(rows[0]) == ["step", "mean", "seed-0", "seed-1", "seed-2"]
    assert float(rows[-1]["mean"]) == pytest.approx(report.metrics["frostbite-mae-all"]["mean"])


def test_the_human_reference_and_the_normalised_score(report: Report) -> None:
    share = (report.metrics["frostbite-spirl"]["mean"] - 65.2) / (4334.7 - 65.2)
    assert ">4,330</dd>" in report.page
    assert f"this policy: {percent(share)}, from random" in report.page


def test_the_difference_from_the_random_policy_has_its_interval(report: Report) -> None:
    metrics = report.metrics["frostbite-spirl"]
    low, high = metrics["above_random_low"], metrics["above_random_high"]
    assert low < metrics["above_random"] < high
    assert metrics["above_random"] == pytest.approx(metrics["mean"] - metrics["random"])
    text = f"difference: +{number(metrics['above_random'])}, "
    assert f'{text}<span class="interval">{number(low)} to {number(high)}' in report.page


def test_the_paper_s_source_is_named(report: Report) -> None:
    assert "A table." in report.page


def test_comparisons_with_the_papers_have_their_section(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    assert "#papers" not in copied.page
    papers = [("SPIRL", "1 reproduced.", ["verdict"], [["**reproduced**, <b>"]])]
    render(PARAMS, copied.artifacts, copied.out, papers=papers)
    assert "<td>reproduced, &lt;b&gt;</td>" in copied.page
    assert "<p>SPIRL. 1 reproduced.</p>" in copied.page
    assert '<a href="#papers">' in copied.page


def test_attention_is_in_the_form_of_the_paper_s_figure(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    assert "Fig. 6" not in copied.page
    sheet = copied.artifacts / "evaluations" / "frostbite-spirl" / "attention.png"
    shutil.copy(copied.artifacts / "encoders" / "frostbite-mae" / "panels.png", sheet)
    reseal(sheet.parent)
    render(PARAMS, copied.artifacts, copied.out)
    assert copied.page.count("SPIRL, Fig. 6") == 1
    assert str(data_uri(sheet, "image/png")) in copied.page.split("SPIRL, Fig. 6")[0]


def test_a_map_of_the_policys_attention_is_captioned_as_one(copied: Report) -> None:
    folder = copied.artifacts / "evaluations" / "frostbite-spirl"
    shutil.copy(
        copied.artifacts / "encoders" / "frostbite-mae" / "panels.png", folder / "attention.png"
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    reseal(folder, metrics=manifest["metrics"] | {"video_shows": "attention"})
    render(PARAMS, copied.artifacts, copied.out)
    assert copied.page.count("the policy's attention in green") == 2  # the video and the steps
    assert "SPIRL, Fig. 6" not in copied.page


def test_the_page_does_not_vary_from_run_to_run(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    page = copied.page
    shutil.rmtree(copied.artifacts / ".runs")
    render(PARAMS, copied.artifacts, copied.out)
    assert copied.page == page


def test_only_short_runs_are_marked_as_smoke_tests(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    assert "3,000 of the paper's 100,000 steps" in copied.page
    assert "Their numbers are not results" in copied.page
    for name in PARAMS["policies"]:
        edit(copied.artifacts / "evaluations" / name / "evaluation.json", paper_steps=3000)
    metrics = render(PARAMS, copied.artifacts, copied.out)
    assert not any(values["smoke"] for values in metrics.values())
    assert "not results." not in copied.page
    assert ">Smoke<" not in copied.page


def test_simulated_clicks_are_labelled(copied: Report) -> None:
    """In the annotations, and in everything made from them."""
    params = PARAMS | {"annotations": {"clicks": {"frames": "frostbite", "annotator": "simulated"}}}
    folder = copied.artifacts / "annotations" / "clicks"
    for simulated, badges in ((False, 0), (True, 2)):
        metrics = {"frames": 30, "simulated_clicks": simulated}
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(96, 96)).save(folder / "overlay.png")
        manifest(copied.artifacts, "annotations/clicks", params["annotations"]["clicks"],
                 ["frames/frostbite"], metrics)  # fmt: skip
        edit(copied.artifacts / "predictors/frostbite-motion/manifest.json", metrics=metrics)
        render(params, copied.artifacts, copied.out)
        assert copied.page.count(">Simulated clicks</span>") == badges
        assert (
            "Annotated points, rendered as Gaussians and overlaid on their frames (clicks)"
            in copied.page
        )


def test_maps_and_loss_of_a_predictor_are_on_the_page(copied: Report) -> None:
    folder = copied.artifacts / "predictors" / "frostbite-motion"
    Image.fromarray(picture(96, 96)).save(folder / "overlay.png")
    (folder / "curve.csv").write_text("step,loss\n1,0.9\n2,0.5\n")
    reseal(folder)
    render(PARAMS, copied.artifacts, copied.out)
    assert "on validation frames (frostbite-motion)" in copied.page
    assert "Training loss of frostbite-motion" in copied.page


# Exams


def test_sources_are_above_the_controls_of_their_annotations(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    (table,) = re.findall(r"(?s)<h3>annotations/frostbite-objects</h3>.*?</table>", copied.page)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    assert "1000 annotated frames. 7 keypoints a frame at most, 5.25 objects" in text
    assert "highest possible recall is 0.97" in text and "distance below 0.2," in text
    for words in (
        "Source F error recall precision NSS KL sAUC AUC CC SIM IG occlusion KL occlusion ΔV",
        "motion predictors/frostbite-motion 0.31 shuffled 0.155 0.25 shuffled 0.25 0.62 shuffled",
        "0.6 (0.5 to 0.7) shuffled 0.3; uniform attention 0.45",  # the policy's recall
        "0.06 (0.05 to 0.07) random cells 0.025 0.6 (90 %) (0.5 to 0.7)",
        "centre prior 0.155 0.25 0.31 0.155 0.62 [−0.15, 1.39] 3 (87 %) – –",
        "all-zero map 0 0.25 0 0",
    ):
        assert words in text, text
    assert (
        text.index("policy of rainbow policies/frostbite-spirl")
        < text.index("all-zero map")
        < text.index("motion from")
    )
    assert "a second annotator" not in text
    assert copied.page.count("Recall of ") == 3 and "distance ε" in copied.page
    assert "Recall of watched: 0.60 at ε = 0.2, 7 keypoints" in copied.page


def test_the_matrix_has_every_source_and_control_on_every_truth(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    (table,) = re.findall(r"(?s)<h3>Sources and truths</h3>.*?</table>", copied.page)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", table))
    for words in (
        "objects in RAM: frostbite-objects, 7 keypoints",
        "mae NSS 0.92 [−0.223, 2.06]; shuffled 0.46 recall 0.46; shuffled 0.23 F 0.23;",
        "policy of rainbow NSS 1.2 (1 to 1.4); shuffled 0.6; uniform attention 0.9 recall 0.6",
        "occlusion KL 0.06 (0.05 to 0.07); random cells 0.025 2 seeds all-zero map NSS 0 [0, 0]",
        "recall 0 F 0 centre prior NSS 0.62",
    ):
        assert words in text, text


def test_exams_of_other_annotations_or_keypoints_have_a_table_of_their_own(copied: Report) -> None:
    entry = PARAMS["exams"]["error"]
    for name, changes in (("ten", {"keypoints": 10}), ("maps", {"keypoints": None})):
        value = exam(entry, 0.5) | changes
        if name == "maps":
            value["objects"] = {}
            for row in (*value["controls"].values(), *value["seeds"][0].values()):
                if row:
                    del row["points"]
        write_json(copied.artifacts / "exams" / name / "exam.json", value)
        manifest(copied.artifacts, f"exams/{name}", entry | changes, [entry["truth"]], {})
    params = PARAMS | {"exams": PARAMS["exams"] | {"ten": entry, "maps": entry}}
    render(params, copied.artifacts, copied.out)
    assert copied.page.count("<h3>annotations/frostbite-objects</h3>") == 3
    assert copied.page.count(">recall</th>") == 2 and copied.page.count("Recall of ") == 4


def test_a_missing_exam_is_named_and_without_exams_there_is_no_section(copied: Report) -> None:
    shutil.rmtree(copied.artifacts / "exams/error")
    render(PARAMS, copied.artifacts, copied.out)
    assert "dvc repro exam@error" in copied.page and "Recall of motion" in copied.page
    render(PARAMS | {"exams": {}}, copied.artifacts, copied.out)
    assert "#exams" not in copied.page


# Existing and missing artifacts


def test_only_entries_of_params_are_read(copied: Report) -> None:
    (copied.artifacts / "evaluations" / "left-over").mkdir()
    (copied.artifacts / "evaluations" / "left-over" / "evaluation.json").write_text("not JSON")
    params = PARAMS | {"policies": {"frostbite-der": PARAMS["policies"]["frostbite-der"]}}
    params |= {"exams": {}}
    render(PARAMS, copied.artifacts, copied.out)
    assert list(render(params, copied.artifacts, copied.out)) == ["frostbite-der"]
    assert "frostbite-spirl" not in copied.page
    assert "left-over" not in copied.page
    assert [path.name for path in (copied.out / "curves").iterdir()] == ["frostbite-der.csv"]


def test_without_artifacts_the_page_lists_the_commands(tmp_path: Path) -> None:
    assert render(PARAMS, tmp_path / "artifacts", tmp_path / "report") == {}
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "15 of 15 artifacts are missing" in page
    for command in ("collect@frostbite", "pretrain@frostbite-mae", "evaluate@frostbite-der"):
        assert f"dvc repro {command}" in page


def test_empty_tables_are_fine(tmp_path: Path) -> None:
    assert render({table: None for table in PARAMS}, tmp_path, tmp_path / "report") == {}
    assert "params.yaml has no policies" in (tmp_path / "report" / "index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        ("evaluations/frostbite-spirl", "dvc repro evaluate@frostbite-spirl"),
        ("policies/frostbite-spirl", "dvc repro train@frostbite-spirl"),
        ("evaluations/frostbite-spirl/video.mp4", "evaluations/frostbite-spirl/video.mp4"),
    ],
)
def test_missing_files_are_named(copied: Report, gone: str, text: str) -> None:
    path = copied.artifacts / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
        reseal(path.parent)
    render(PARAMS, copied.artifacts, copied.out)
    assert text in copied.page


def test_files_without_a_manifest_are_ignored(copied: Report) -> None:
    for table in ("evaluations", "policies"):
        (copied.artifacts / table / "frostbite-spirl/manifest.json").unlink()
    (copied.artifacts / "policies/frostbite-der/manifest.json").unlink()
    (copied.artifacts / "policies/frostbite-der/seed-0/curve.csv").write_text("not a curve")
    assert "frostbite-spirl" not in render(PARAMS, copied.artifacts, copied.out)
    assert "dvc repro evaluate@frostbite-spirl" in copied.page


@pytest.mark.parametrize(
    "file", ["encoders/frostbite-mae/panels.png", "evaluations/frostbite-spirl/evaluation.json"]
)
def test_files_that_differ_from_their_manifest_are_refused_by_name(
    copied: Report, file: str
) -> None:
    path = copied.artifacts / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for says in ("not the bytes that the manifest lists", "missing from the artifact"):
        with pytest.raises(FoveaError, match=f"{file}: {says}.*dvc repro -fs"):
            render(PARAMS, copied.artifacts, copied.out)
        path.unlink(missing_ok=True)
    assert not copied.out.exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("evaluations/frostbite-spirl/evaluation.json", "{"),
        ("evaluations/frostbite-spirl/evaluation.json", "{}"),
        ("evaluations/frostbite-spirl/evaluation.json", "[]"),
        ("evaluations/frostbite-spirl/manifest.json", "{}"),
        ("evaluations/frostbite-spirl/video.mp4", "<html>"),
        ("encoders/frostbite-mae/panels.png", "GIF89a"),
        ("encoders/frostbite-mae/curve.csv", "step,accuracy\n1,2\n"),
        ("exams/error/exam.json", '{"frames": 3}'),
    ],
)
def test_malformed_files_are_refused_by_name(copied: Report, file: str, content: str) -> None:
    path = copied.artifacts / file
    path.write_text(content)
    if path.name != "manifest.json":  # so that it is refused for what it holds
        reseal(path.parent)
    with pytest.raises(FoveaError, match=Path(file).name.replace(".", r"\.")):
        render(PARAMS, copied.artifacts, copied.out)
    assert not copied.out.exists()


@pytest.mark.parametrize("returns", [[], [float("nan")], [[1.0]], "12"])
def test_invalid_returns_are_refused(copied: Report, returns: object) -> None:
    path = copied.artifacts / "evaluations" / "frostbite-der" / "evaluation.json"
    edit(path, random={"returns": returns})
    with pytest.raises(FoveaError, match=r"frostbite-der/evaluation\.json"):
        render(PARAMS, copied.artifacts, copied.out)


def test_text_from_artifacts_is_escaped(copied: Report) -> None:
    evil = "</code><script>alert(1)</script>\"'&"
    path = copied.artifacts / "frames" / "frostbite" / "manifest.json"
    edit(path, entry={"env": evil, evil: evil}, metrics={evil: evil})
    evaluation = copied.artifacts / "evaluations" / "frostbite-der" / "evaluation.json"
    edit(evaluation, env=evil)
    render(PARAMS, copied.artifacts, copied.out)
    assert "<script" not in copied.page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in copied.page


def test_an_input_of_another_version_is_marked(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    assert "another version" not in copied.page
    edit(copied.artifacts / "encoders" / "frostbite-pixels" / "manifest.json", metrics={"new": 1})
    render(PARAMS, copied.artifacts, copied.out)
    assert copied.page.count("another version") == 2  # the policy and its evaluation


def test_a_committed_encoder_is_an_input_like_any_other(copied: Report) -> None:
    policy = copied.artifacts / "policies" / "frostbite-der" / "manifest.json"
    for digest, marks in ((open_artifact("encoders/pixels").digest, 0), ("0" * 64, 1)):
        edit(policy, inputs={"encoders/pixels": digest})
        render(PARAMS, copied.artifacts, copied.out)
        assert copied.page.count("built from another version of encoders/pixels") == marks


def test_same_artifacts_same_bytes(copied: Report) -> None:
    render(PARAMS, copied.artifacts, copied.out)
    render(PARAMS, copied.artifacts, copied.out.with_name("again"))
    assert copied.page == (copied.out.with_name("again") / "index.html").read_text("utf-8")
    names = sorted(path.name for path in copied.out.iterdir())
    assert names == ["curves", "index.html", "scores"]


def test_the_lineage_has_inputs_and_digests(report: Report) -> None:
    item = data.gather(PARAMS, report.artifacts)["evaluations"][0]
    assert item.digest is not None
    row = f"evaluations/frostbite-spirl</th>\n      <td><code>{item.digest[:8]}</code></td>"
    assert f"{row}\n      <td>policies/frostbite-spirl, encoders/frostbite-mae</td>" in report.page


# Curves and numbers


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 50, 100]),
        (0, 3000, [0, 1000, 2000, 3000]),
        (-21, -18, [-21, -20, -19, -18]),
        (0.1, 0.5, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_numbers_have_three_digits() -> None:
    assert [number(v) for v in (12345.6, 65.24, 0.4823, 0, -20.74, 999.6)] == [
        "12,300", "65.2", "0.482", "0", "\N{MINUS SIGN}20.7", "1,000"
    ]  # fmt: skip
    assert [percent(v) for v in (0.1234, -0.0001, -0.0106, 0.999)] == [
        f"{text}\N{NO-BREAK SPACE}%" for text in ("12.3", "0", "\N{MINUS SIGN}1.1", "99.9")
    ]


def test_thinning_keeps_ends_and_mean() -> None:
    curve = np.stack([np.arange(1000.0), np.arange(1000.0) ** 2], axis=1)
    thinned = charts.thin(curve, 100)
    assert thinned.shape == (100, 2)
    assert thinned.mean(axis=0) == pytest.approx(curve.mean(axis=0))
    assert charts.thin(curve, 1000) is curve


def test_data_uri_needs_the_right_kind(report: Report, tmp_path: Path) -> None:
    picture = report.artifacts / "frames" / "frostbite" / "contact_sheet.png"
    uri = data_uri(picture, "image/png")
    assert uri is not None and uri.startswith("data:image/png;base64,iVBOR")
    with pytest.raises(FoveaError, match="not video/mp4"):
        data_uri(picture, "video/mp4")
    assert data_uri(tmp_path / "none.png", "image/png") is None


# The page in a browser


@pytest.fixture(params=[(390, 844, "light"), (1440, 900, "dark")], ids=["phone", "desktop"])
def opened(
    report: Report, browser: Browser, request: pytest.FixtureRequest
) -> Iterator[tuple[Page, list[str]]]:
    """The report with all details open, and all errors that it logged and requests that it sent."""
    width, height, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    events: list[str] = []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    address = (report.out / "index.html").as_uri()
    page.on(
        "request",
        lambda sent: (
            events.append(sent.url)
            if sent.url != address and not sent.url.startswith("data:")
            else None
        ),
    )
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    yield page, events
    page.close()


def test_page_is_self_contained_quiet_and_fits(opened: tuple[Page, list[str]]) -> None:
    page, events = opened
    page.wait_for_load_state("networkidle")
    assert events == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # Nothing sticks out of what holds it either, but for tables that scroll on their own.
    sticking = page.evaluate(
        """[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, svg')
            && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"""
    )
    assert sticking == []


def test_pictures_and_videos_decode(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    widths = page.evaluate(
        """Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"""
    )
    assert widths == [576] * 6
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(v => v.readyState >= 2 || v.error)"
    )
    videos = page.evaluate(
        """[...document.querySelectorAll('video')].map(
            v => [v.videoWidth, v.videoHeight, v.duration, v.error])"""
    )
    assert videos == [[384, 416, pytest.approx(24 / 15), None]] * 3


def test_page_is_accessible(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened

    def count(selector: str) -> int:
        return page.locator(selector).count()

    assert page.locator("html").get_attribute("lang") == "en"
    assert count("h1") == 1
    assert count("img:not([alt]), img[alt='']") == 0
    assert count("video:not([aria-label])") == 0
    assert count("svg:not([aria-label]):not([aria-hidden])") == 0
    assert count("table:has(caption)") == count("table") > 0
    headings = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    for anchor in page.locator("nav a").all():
        assert count(anchor.get_attribute("href") or "#") == 1
