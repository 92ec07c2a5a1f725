"""The generated pages: the committed ones, and their text for given records."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.config.tables import Params
from pipeline.results.claims import CLAIMS, Claims, read_claims, read_papers
from pipeline.results.comparisons import Records
from pipeline.results.pages import CURVES, PROVENANCE, RESULTS, against_papers, pages
from pipeline.results.record import read_records
from pipeline.results.verdict import Gap
from tests.pipeline.results.some_records import by_label, fifty, probe_of, saliency_of, seed_of
from tests.pipeline.results.test_claims import SMALL, written

PAPER = read_claims(CLAIMS / "spirl.yaml")
PAGE = Path("docs/results/spirl.md")


def rendered(claims: Claims, records: Records) -> str:
    return pages([claims], records)[PAGE.with_name(f"{claims.name.lower()}.md")]


def test_the_committed_pages_are_up_to_date() -> None:
    files = pages(read_papers(), read_records())
    assert set(Path("docs/results").iterdir()) <= files.keys()
    for path, text in files.items():
        assert path.read_text("utf-8") == text, path
    assert len(files[RESULTS].splitlines()) <= 170


def test_every_figure_exists_and_is_included() -> None:
    figures = {path for paper in read_papers() for line in paper.lines for path in line.figures}
    pictures = (path for path in Path("docs").iterdir() if path.suffix in (".png", ".svg"))
    assert figures == {path.as_posix() for path in pictures}


def measured() -> Records:
    note = "worse | <script>alert(1)</script>"
    above = [seed_of("frostbite-spirl", s, [[700.0 + s, 710.0]]) for s in range(3)]
    below = [seed_of("frostbite-der", s, [[300.0 + s, 310.0]]) for s in range(3)]
    few = [seed_of("mspacman-spirl", 0, [[900.0]]), seed_of("mspacman-der", 0, [[950.0]])]
    return by_label(*(replace(one, note=note) for one in (*above, *below, *few)))


def test_a_page_with_seeds_shows_them() -> None:
    page, results = rendered(PAPER, measured()), pages([PAPER], measured())[RESULTS]
    for text in (page, results):
        assert "Comparisons: 1 reproduced, 0 not reproduced, 1 under-powered, 35 not run." in text
        assert "4 of 74 policies and encoders measured." in text
        assert "| Frostbite | SPIRL − DE-Rainbow | +328.1 | +400.0 |" in text
        assert "**reproduced**, 3 and 3 seeds |" in text
        needed = Gap(1015.2 - 904.1, (286.4, 124.3)).seeds_needed
        word = f"**under-powered**, n = {needed} for 80 % power, 1 and 1 seeds |"
        assert f"too few seeds | {word}" in text
        assert "| SPIRL | Frostbite | 669.5 (731.7) | 705.5 [704.6, 706.3] |" in text
        assert "<script" not in text
    assert "| Frostbite | SPIRL − DE-Rainbow-P | +185.8 |  |  | not run: DE-Rainbow-P |" in page
    assert "Frostbite 1.5 random here, 65.2 random published, 4,334.7 human published" in page
    assert "| SimPLe | Frostbite | 254.7 | not in Fovea |" in page
    for block in page.split("\n\n"):
        rows = [line.replace("\\|", "").count("|") for line in block.splitlines()]
        assert len(set(rows)) <= 1  # no text ends its cell


def test_success_rates_are_listed_with_the_random_policy_s(tmp_path: Path) -> None:
    text = (CLAIMS / "spirl.yaml").read_text().replace("protocol: mean ", "protocol: success ", 1)
    seeds = [seed_of("frostbite-spirl", s, [[1.0]]) for s in range(2)]
    for seed in seeds:
        seed.scores["random"]["successes"] = fifty([0.0, 0.0, 0.0, 0.0, 1.0])
        seed.scores["checkpoints"][0]["successes"] = fifty([0.0, 1.0])
    page = rendered(read_claims(written(tmp_path, text)), by_label(*seeds))
    assert "| SPIRL | Frostbite | 669.50 (731.70) | 0.50 [" in page
    assert "Reference scores: Frostbite 0.20 random here" in page


def test_failed_seeds_are_counted() -> None:
    lost = [seed_of("frostbite-der", s, [], "the loss is not finite") for s in range(3)]
    records = dict(measured()) | by_label(*lost)
    assert "**reproduced**, 3 and 3 seeds, 3 failed |" in rendered(PAPER, records)
    assert "| 3, 3 failed |" in rendered(PAPER, records)


def test_sources_of_saliency_are_listed_with_their_controls(
    tmp_path: Path, small: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SMALL.replace("measured: times.json, ", "").replace("{times[0][ms]:,.0f}", "9")
    near = saliency_of(small, "near", 0.01, f_max=0.5, centre_f_max=0.1, second_f_max=0.75)
    far = saliency_of(small, "far", 0.02, f_max=0.7, centre_f_max=0.1)
    probes = [probe_of(small, f"reach-mae-s{i}", pooled=0.5) for i in range(3)]
    page = rendered(read_claims(written(tmp_path, text)), by_label(near, far, *probes))
    # Deviations of two numbers d apart are d / sqrt(2).
    cells = "0.0150 (0.0071), below all-zero 1 of 2 | 0.0150 (0.0000) | 0.600 (0.141) |"
    assert f"| S |  | 2 | {cells} 0.100 (0.000) | MAE , F 0.750 |" in page
    assert "| S, MAE | −0.1000 | −0.0100 | too few seeds | **under-powered**, by task" in page
    assert "| MAE | Reach |  | 0.500 [0.500, 0.500] |  | 3 |" in page
    assert "Own questions: 0 holds, 0 does not hold, 0 under-powered, 1 not run." in page


def test_provenance_has_a_row_a_run() -> None:
    rows = list(csv.DictReader(pages([], measured())[PROVENANCE].splitlines()))
    assert len(rows) == 8
    first = rows[0] | {}
    assert first["artifact"] == "policies/frostbite-der" and first["seed"] == "0"
    assert first["digest"] == "d" * 12 and first["recipe"] in ("spirl", "frostbite")
    assert (first["commit"], first["hours"], first["resumed"]) == ("abc", "1.00", "0")
    assert first["machine"] == "2 cores, a processor, no GPU" and "<script>" in first["note"]


def test_the_curve_has_a_line_a_seed_and_a_mean() -> None:
    seeds = [seed_of("frostbite-spirl", s, [[1.0], [1.0]]) for s in range(2)]
    for seed, rates in zip(seeds, ([0.2, 0.8], [0.4, 1.0]), strict=True):
        seed.scores["random"]["successes"] = [0.0] * 50
        for point, rate in zip(seed.scores["checkpoints"], rates, strict=True):
            point["successes"] = [1.0] * round(50 * rate) + [0.0] * round(50 - 50 * rate)
        for number, point in enumerate(seed.scores["checkpoints"]):
            point["step"] = 100 * (number + 1)
    policy, (path, _, _) = next(iter(CURVES.items()))
    root = ElementTree.fromstring(pages([], {policy: seeds})[Path(path)])
    label = "Mean success of SAC on the state of Reach: 0.9 after 200 steps, 2 seeds"
    assert root.attrib["aria-label"] == label
    lines = [e for e in root.iter() if e.attrib.get("class") == "seed"]
    ends = [float(line.attrib["points"].split(",")[-1]) for line in lines]  # at 0.8 and 1.0
    rings = [float(e.attrib["cy"]) for e in root.iter() if e.tag.endswith("}circle")]
    assert rings == pytest.approx([ends[0] + 2.5 * (ends[0] - ends[1]), sum(ends) / 2], abs=0.2)


def test_the_report_has_the_comparisons_of_the_paper() -> None:
    ((name, summary, head, rows),) = against_papers([PAPER], measured())
    assert name == "SPIRL" and summary.startswith("Comparisons: 1 reproduced")
    assert [row[head.index("verdict")].split("**")[1] for row in rows] == [
        "reproduced", "under-powered"
    ]  # fmt: skip
