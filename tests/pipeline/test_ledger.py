"""The ledger: verdicts on made-up data with a known answer, measured files, RESULTS.md."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.errors import FoveaError
from pipeline import artifact, params
from pipeline.ledger import measured, settings
from pipeline.ledger.claims import LEDGER, Claims, read_claims, read_papers
from pipeline.ledger.judged import Measured, compare, count, ours
from pipeline.ledger.measured import add, read_measured
from pipeline.ledger.render import fragment, render
from pipeline.ledger.verdict import STATISTICS, Gap, judge
from pipeline.recipe import recipes
from pipeline.results import RESULTS, main, page

Games = NDArray[np.float64]
MEAN = STATISTICS["mean"]
SPIRL = params.load(recipes()["spirl"])
PAPER = LEDGER / "spirl.yaml"
PAPERS = read_papers()


def seeds(mean: float, spread: float, count: int, seed: int) -> list[Games]:
    generator = np.random.default_rng(seed)
    return [
        mean + spread * generator.standard_normal() + generator.standard_normal(50)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("mean", "spread", "gap", "word"),
    [
        (100.0, 5.0, 100.0, "reproduced"),
        (-100.0, 5.0, 100.0, "not reproduced"),  # the other way round
        (0.0, 5.0, 100.0, "not reproduced"),  # no difference, and surely not the paper's
        (20.0, 100.0, 60.0, "under-powered"),
        (100.0, 5.0, None, "reproduced"),  # the paper only says which is better
        (-100.0, 5.0, None, "not reproduced"),
        (0.0, 5.0, None, "under-powered"),  # and then 0 may hide any difference
    ],
)
def test_verdicts(mean: float, spread: float, gap: float | None, word: str) -> None:
    claimed = None if gap is None else Gap(gap, (10.0, 10.0))
    found = judge(seeds(mean, spread, 6, seed=1), seeds(0.0, spread, 6, seed=2), claimed, MEAN)
    assert found.word == word
    assert found.low < found.difference < found.high


def test_verdicts_at_the_edges_of_the_interval() -> None:
    """Seeds at 0, 0 and 100 against 0: all three of a resample are 100 in 1 of 27, so 0 to 100."""
    zero, mixed = [np.zeros(5)] * 3, [np.zeros(5), np.zeros(5), np.full(5, 100.0)]
    found = judge(mixed, zero, Gap(100.0, (1.0, 1.0)), MEAN)
    assert (found.low, found.high, found.word) == (0.0, 100.0, "under-powered")
    assert judge(mixed, zero, Gap(100.1, (1.0, 1.0)), MEAN).word == "not reproduced"
    assert judge(zero, mixed, Gap(1.0, (1.0, 1.0)), MEAN).word == "not reproduced"


def test_two_seeds_a_side_show_nothing() -> None:
    found = judge(seeds(1e6, 0, 2, 0), seeds(0, 0, 9, 0), Gap(1.0, (1.0, 1.0)), MEAN)
    assert found.word == "under-powered" and math.isnan(found.low)


def test_the_seeds_needed_find_the_gap_in_four_of_five_cases() -> None:
    gap = Gap(100.0, (120.0, 60.0))
    generator = np.random.default_rng(0)
    size = (20_000, gap.seeds_needed)
    above = generator.normal(gap.size, gap.deviations[0], size).mean(1)
    below = generator.normal(0, gap.deviations[1], size).mean(1)
    error = np.hypot(*gap.deviations) / np.sqrt(gap.seeds_needed)
    assert 0.78 < ((above - below) / error > 1.96).mean() < 0.88


def test_with_the_seeds_needed_the_verdict_itself_finds_the_gap() -> None:
    """The whole verdict, bootstrap and all, on simulated pairs: 80 % were asked for, and intervals
    of few seeds are short.
    """
    gap = Gap(100.0, (60.0, 40.0))
    generator = np.random.default_rng(0)

    def side(mean: float, deviation: float) -> list[Games]:
        return list(generator.normal(mean, deviation, (gap.seeds_needed, 1)))

    words = [
        judge(side(gap.size, gap.deviations[0]), side(0, gap.deviations[1]), gap, MEAN).word
        for _ in range(40)
    ]
    assert 0.65 < words.count("reproduced") / len(words) < 1.0


of_each_paper = pytest.mark.parametrize("claims", PAPERS, ids=[one.name for one in PAPERS])


@of_each_paper
def test_every_claim_names_an_entry_of_its_recipe(claims: Claims) -> None:
    for table in claims.tables:
        tables = params.load(recipes()[table.recipe]).tables
        if table.protocol == "probe":
            rows = {row.split(",")[0] for row in table.scores}
            known = {re.sub(r"-s\d$", "", name) for name in tables["encoders"]}
            readings = {row.partition(", ")[2] for row in table.scores}
            assert readings == {
                "",
                "image alone",
                "global token",
            }  # as pipeline/probe.py calls them
        else:
            rows, known = set(table.scores), set(tables["policies"])
        assert rows <= known
        games = {policy.split("-")[0]: score.game for policy, score in table.scores.items()}
        assert all(name == game.split()[0].lower() for name, game in games.items())
        assert table.why and table.brief
        assert not table.own or all(score.mean is None for score in table.scores.values())
    assert all(bool(line.ours) != bool(line.why) for line in claims.lines)


def test_every_policy_of_the_papers_recipes_has_a_claim() -> None:
    claimed = {policy for table in read_claims(PAPER).tables for policy in table.scores}
    for name in ("frostbite", "spirl", "spirl-400k", "spirl-ablations"):
        assert set(params.read_yaml(recipes()[name])["policies"]) <= claimed


def test_every_table_and_figure_has_its_line() -> None:
    claims = read_claims(PAPER)
    said = "\n".join([*(t.name for t in claims.tables), *(line.what for line in claims.lines)])
    tables = re.findall(r"Tables? (\d+)(?: and (\d+))?", said)
    figures = re.findall(r"Fig\. (\d)", said)
    assert {n for pair in tables for n in pair if n} == {str(n) for n in range(1, 16)}
    assert set(figures) == {str(n) for n in range(1, 9)}


def test_every_table_and_figure_of_visarl_has_its_line() -> None:
    claims = read_claims(LEDGER / "visarl.yaml")
    said = "\n".join([*(t.name for t in claims.tables), *(line.what for line in claims.lines)])
    assert set(re.findall(r"Table (\w+)", said)) == {"I", "II", "III", "IV", "V", "VI"}
    assert set(re.findall(r"Fig\. (\d)", said)) == {str(n) for n in range(1, 8)}


def test_the_slips_of_visarl_are_as_its_notes_say() -> None:
    """The printed numbers against each other: averages, gains, and what is true of every task."""
    table = read_claims(LEDGER / "visarl.yaml").tables[0]
    tasks = ("reach", "drawer", "faucet", "door")

    def row(arm: str) -> Games:
        return np.array([table.scores[f"{task}-{arm}"].mean for task in tasks])

    printed = {"cnn-rgb": 0.45, "cnn-saliency": 0.05, "cnn-rgbxs": 0.35, "cnn-rgbs": 0.58,
               "multimae-rgb": 0.47, "visarl-po": 0.57, "visarl": 0.65}  # fmt: skip
    wrong = {arm for arm, mean in printed.items() if abs(row(arm).mean() - mean) > 0.00501}
    assert wrong == {"visarl"} and row("visarl").mean() == pytest.approx(0.7025)
    spread = [table.scores[f"{task}-cnn-rgbs"].deviation for task in tasks]
    assert np.mean(np.array(spread)) == pytest.approx(0.055)  # printed: 0.37
    assert (100 * (row("cnn-rgbs") - row("cnn-rgb"))).round().tolist() == [12, 30, 3, 6]
    assert (100 * (row("visarl") - row("multimae-rgb"))).round().tolist() == [13, 11, 42, 29]
    assert row("visarl").mean() - row("multimae-rgb").mean() == pytest.approx(0.2375)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("frostbite-der-p:", "frostbite-derp:", "has no policies frostbite-derp"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-der, frostbite-spirl]", "above"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-spirl, mspacman-der]", "same game"),
        ("- [frostbite-spirl, frostbite-der]", "- [frostbite-spirl]", "malformed"),
        ("[SPIRL, Frostbite, 669.5, 731.7]", "[SPIRL, Frostbite, many, 731.7]", "malformed"),
        ("[SPIRL, Frostbite, 669.5, 731.7]", "[SPIRL, Frostbite, 669.5]", "malformed"),
        ("protocol: mean ", "protocol: best ", "protocol 'best'"),
        ("recipe: spirl\n", "recipe: sprl\n", "malformed.*sprl"),
    ],
)
def test_a_slip_in_the_claims_is_found(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "claims.yaml"
    text = PAPER.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FoveaError, match=rf"claims\.yaml.*{told}"):
        read_claims(path)


def test_results_are_rendered_from_what_is_committed() -> None:
    assert RESULTS.read_text("utf-8") == page()


def one(policy: str, seed: int, returns: list[list[float]], **more: object) -> dict[str, Any]:
    """A measured file at the recipe's settings; the last of `returns` at the end of training."""
    entry = SPIRL.entry("policies", policy)
    steps = entry.config.steps
    run = {
        "commit": "abc",
        "machine": {"processor": "a processor", "cores": 2, "gpu": None},
        "wall_seconds": 3600.0,
        "resumed": 0,
    }
    encoder = SPIRL.entry("encoders", entry.keys.encoder)
    return {
        "policy": policy,
        "seed": seed,
        "failed": None,
        "note": "",
        "entry": entry.resolved(frozenset({"games", "epsilon"})),
        "encoder": {
            "digest": "d" * 64,
            "entry": encoder.resolved(),
            "frames": 5000,
            "parameters": 790_784 if encoder.keys.model == "mae" else 0,
            "run": run,
        },
        "run": run,
        "games": 50,
        "epsilon": 0.001,
        "checkpoints": [
            {"step": steps - 10_000 * i, "returns": fifty(games)}
            for i, games in enumerate(reversed(returns))
        ],
        "random": {"returns": fifty([1.0, 2.0])},
    } | more


def fifty(games: list[float]) -> list[float]:
    return (games * 50)[:50]


def keep(folder: Path, *files: dict[str, Any]) -> Path:
    for file in files:
        (folder / measured.file_name(file["policy"], file["seed"])).write_text(json.dumps(file))
    return folder


def test_scores_go_by_the_protocol_and_failed_seeds_stay_in(tmp_path: Path) -> None:
    best = [[0.0, 0.0, 99.0], [5.0, 5.0, 5.0], [1.0, 1.0, 1.0]]
    early = one("frostbite-spirl", 1, [[7.0]], failed="the loss is not finite")
    early["checkpoints"][0]["step"] = 20_000
    failed = one("frostbite-spirl", 2, [], failed="the loss is not finite")
    keep(tmp_path, one("frostbite-spirl", 0, best), early, failed)
    found = read_measured(tmp_path)["frostbite-spirl"]
    assert [seed.games("mean").mean() for seed in found] == [1.0, 7.0, 1.5]
    assert [np.median(seed.games("median")) for seed in found] == [5.0, 7.0, 1.5]
    score = ours(found, "mean")
    assert (score.seeds, score.failed) == (3, 2)
    assert score.mean == pytest.approx(9.5 / 3)


def test_success_is_that_of_the_last_checkpoint(tmp_path: Path) -> None:
    played = one("frostbite-spirl", 0, [[9.0], [1.0]])
    failed = one("frostbite-spirl", 1, [], failed="the loss is not finite")
    for file in (played, failed):
        file["random"]["successes"] = fifty([0.0, 0.0, 0.0, 0.0, 1.0])
    for point, rate in zip(played["checkpoints"], (0.5, 1.0), strict=True):
        point["successes"] = fifty([rate == 1.0, True])
    found = read_measured(keep(tmp_path, played, failed))["frostbite-spirl"]
    assert [seed.games("success").mean() for seed in found] == [0.5, 0.2]
    keep(tmp_path, one("frostbite-spirl", 2, [[1.0]]))
    seed = read_measured(tmp_path)["frostbite-spirl"][2]
    with pytest.raises(FoveaError, match=r"seed-2\.json: has no successes"):
        seed.games("success")
    played["checkpoints"][0]["successes"][0] = 2
    with pytest.raises(FoveaError, match=r"seed-0\.json.*0 or 1"):
        read_measured(keep(tmp_path, played))


def test_what_saliency_comes_from_is_checked_too(tmp_path: Path) -> None:
    """As of an encoder itself: another setting asks for a note, and is not mixed with others."""
    frames = SPIRL.entry("frames", "frostbite").resolved()
    file = one("frostbite-spirl", 0, [[1.0]])
    file["encoder"]["made_from"] = {"frames/frostbite": {"digest": "a", "entry": frames}}
    assert read_measured(keep(tmp_path, file))
    file["encoder"]["made_from"]["frames/frostbite"]["entry"] = frames | {"seed": 7}
    with pytest.raises(FoveaError, match=r"frames/frostbite: seed not as in the recipes.*--note"):
        read_measured(keep(tmp_path, file))
    keep(tmp_path, file | {"note": "other frames"}, one("frostbite-spirl", 1, [[1.0]]))
    with pytest.raises(FoveaError, match="encoders of different settings"):
        read_measured(tmp_path)


def test_a_score_lies_in_its_interval_under_either_protocol(tmp_path: Path) -> None:
    """One seed of ten scores 90: the median of all games, resampled, is 0; the score is 9."""
    files = [one("frostbite-spirl", i, [[90.0 * (i == 0)]]) for i in range(10)]
    found = read_measured(keep(tmp_path, *files))["frostbite-spirl"]
    for protocol in ("mean", "median"):
        score = ours(found, protocol)
        assert score.mean == 9
        assert score.mean_interval[0] <= score.mean <= score.mean_interval[1]


def pages(tmp_path: Path) -> Measured:
    note = "worse | <script>alert(1)</script>"
    above = [one("frostbite-spirl", s, [[700.0 + s, 710.0]], note=note) for s in range(3)]
    below = [one("frostbite-der", s, [[300.0 + s, 310.0]]) for s in range(3)]
    few = [one("mspacman-spirl", 0, [[900.0]], note=note), one("mspacman-der", 0, [[950.0]])]
    return Measured(read_measured(keep(tmp_path, *above, *below, *few)), {}, {})


def test_a_page_with_runs_shows_them(tmp_path: Path) -> None:
    claims, kept = read_claims(PAPER), pages(tmp_path)
    assert count(compare(claims, kept)) == {
        "reproduced": 1,
        "not reproduced": 0,
        "under-powered": 1,
        "not run": len(compare(claims, Measured({}, {}, {}))) - 2,
    }
    page = render([claims], kept)
    assert "1 reproduced, 0 not reproduced, 1 under-powered" in page
    assert "8 seeds of 4 of the" in page
    assert "| Frostbite | SPIRL above DE-Rainbow | +328.1 | +400.0 |" in page
    assert "**reproduced**" in page and "`abc`" in page
    gap = Gap(1015.2 - 904.1, (286.4, 124.3))
    assert f"too few seeds | **under-powered**, about {gap.seeds_needed} seeds a side |" in page
    row = "| Frostbite | SPIRL above DE-Rainbow-P | +185.8 |  |  | not run, "
    assert f"{row}{claims.tables[0].brief}: DE-Rainbow-P |" in page
    assert "| Frostbite | 65.2 | 1.5 | 4,334.7 |" in page  # the scale of scores
    partly = page[page.index("### Table 2, 100K") : page.index("### Table 2, 400K")]
    assert "Not run, where it says so: 100,000 steps" in partly


def test_a_note_can_t_break_the_page(tmp_path: Path) -> None:
    page = render([read_claims(PAPER)], pages(tmp_path))
    assert "<script" not in page
    rows = [line for line in page.splitlines() if line.startswith("| frostbite-spirl |")]
    heads = [line for line in page.splitlines() if line.startswith("| policy |")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {heads[0].count("|")}


def test_the_fragment_is_sound_html_of_what_was_judged(tmp_path: Path) -> None:
    opened: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    claims = read_claims(PAPER)
    text = fragment([claims], pages(tmp_path))
    Balanced().feed(text)
    assert not opened
    assert text.count("<tr>") == 3  # the head, and the two that are judged
    assert "<strong>reproduced</strong>" in text
    assert "<table>" not in fragment([claims], Measured({}, {}, {}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"policy": ', "malformed"),
        ("[]", "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]]) | {"checkpoints": []}), "no games after"),
        (json.dumps(one("frostbite-spirl", 0, [[float("nan")]])), "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]], games=49)), "malformed"),
        (json.dumps(one("frostbite-spirl", 0, [[1.0]], run={})), "malformed"),
        (json.dumps(one("frostbite-spirl", 1, [[1.0]])), "rename"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "frostbite-spirl-seed-0.json").write_text(text)
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json.*{told}"):
        read_measured(tmp_path)


def changed(table: str, **values: object) -> dict[str, Any]:
    file = one("frostbite-spirl", 0, [[1.0]])
    where = {"entry": file["entry"], "encoder": file["encoder"], "file": file}[table]
    where |= values
    return file


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (changed("entry", learning_rate=3e-4), "learning_rate not as in the recipes"),
        (changed("entry", features={"max_ratio": 0.5}), "features not as in the recipes"),
        (changed("entry", features={}), "features not as in the recipes"),
        (changed("entry", colour="red"), "colour not as in the recipes"),
        (changed("entry", checkpoint_every=50_000), "checkpoint_every not as"),
        (changed("file", epsilon=0.05), "epsilon not as in the recipes"),
        (changed("encoder", frames=2000), "count of frames.*--note"),
        (changed("encoder", entry={"model": "mae", "epochs": 10}), "epochs.*--note"),
    ],
)
def test_other_settings_are_refused_when_read(
    tmp_path: Path, file: dict[str, Any], told: str
) -> None:
    with pytest.raises(FoveaError, match=rf"frostbite-spirl-seed-0\.json.*{told}"):
        read_measured(keep(tmp_path, file))


@pytest.mark.parametrize("name", ["spirl", "visarl"])
def test_an_entry_is_itself_after_it_was_kept(name: str) -> None:
    """A tuple comes back from JSON as a list."""
    for entry in params.load(recipes()[name]):
        kept = json.loads(json.dumps(entry.resolved(settings.FREE)))
        assert settings.differences(kept, entry) == []
        assert settings.differences(kept | {"seed": -1}, entry)


def test_a_setting_that_came_later_was_its_default_before(tmp_path: Path) -> None:
    file = one("frostbite-spirl", 0, [[1.0]])
    del file["entry"]["sigma"]
    assert read_measured(keep(tmp_path, file))


def test_a_shorter_pretraining_is_taken_with_a_note_but_not_mixed(tmp_path: Path) -> None:
    short = changed("encoder", frames=2000) | {"note": "2,000 frames"}
    (kept,) = read_measured(keep(tmp_path, short))["frostbite-spirl"]
    assert kept.encoder.frames == 2000
    assert "| frostbite-mae | `dddddddddddd` | 2,000 | 50 |" in render(
        [read_claims(PAPER)], Measured({"frostbite-spirl": [kept]}, {}, {})
    )
    keep(tmp_path, one("frostbite-spirl", 1, [[1.0]]))
    with pytest.raises(FoveaError, match=r"frostbite-spirl: seeds on encoders of different"):
        read_measured(tmp_path)


def artifacts(root: Path, returns: float = 4.0, **changed: Any) -> Path:
    """A finished evaluation of frostbite-spirl, as its stages leave it."""
    file = one("frostbite-spirl", 0, [[returns]]) | {
        key: value for key, value in changed.items() if key in ("games", "epsilon")
    }
    encoder = SPIRL.entry("encoders", "frostbite-mae").resolved()
    entry = file["entry"] | {k: v for k, v in changed.items() if k not in file}
    evaluation = {
        "games": file["games"],
        "epsilon": file["epsilon"],
        "seeds": [{"seed": 0, "failed": None, "checkpoints": file["checkpoints"]}],
        "random": file["random"],
    }
    evaluation["seeds"][0]["checkpoints"][0]["step"] = entry["steps"]
    inputs: dict[str, str] = {}
    for label, made in (
        ("encoders/frostbite-mae", encoder),
        ("policies/frostbite-spirl", entry),
        ("evaluations/frostbite-spirl", {}),
    ):
        folder = root / label
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
        metrics = {"frames": 5000, "parameters": 790_784}
        artifact.seal(folder, label, entry=made, inputs=inputs, metrics=metrics)
        inputs[label] = artifact.open_artifact(label, root).digest
    (root / ".runs").mkdir()
    (root / ".runs/train-frostbite-spirl.json").write_text(json.dumps(file["run"]))
    return root


def test_adding_keeps_one_readable_file_a_seed(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts", seeds=1)  # fewer seeds are no other training
    (path,) = add("frostbite-spirl", "a note", root=root, folder=tmp_path / "kept")
    (seed,) = read_measured(tmp_path / "kept")["frostbite-spirl"]
    assert path.name == "frostbite-spirl-seed-0.json"
    assert seed.games("mean").tolist() == [4.0] * 50 and seed.note == "a note"
    assert seed.encoder.frames == 5000 and seed.encoder.run is None  # no record of it was there
    assert len(path.read_text().splitlines()) > 10
    before = path.read_bytes()
    add("frostbite-spirl", "a note", root=root, folder=tmp_path / "kept")  # again changes nothing
    assert path.read_bytes() == before


def test_adding_joins_seeds_measured_elsewhere(tmp_path: Path) -> None:
    keep(tmp_path, one("frostbite-spirl", 3, [[9.0]]))
    add("frostbite-spirl", root=artifacts(tmp_path / "artifacts"), folder=tmp_path)
    assert [seed.seed for seed in read_measured(tmp_path)["frostbite-spirl"]] == [0, 3]


def test_seeds_added_later_leave_the_record_of_those_kept(tmp_path: Path) -> None:
    """The run that goes from one seed to two trained the second alone."""
    root = artifacts(tmp_path / "artifacts")
    (first,) = add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    before = first.read_bytes()
    played = artifact.open_artifact("evaluations/frostbite-spirl", root)
    path = played.folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["seeds"].append(evaluation["seeds"][0] | {"seed": 1})
    path.write_text(json.dumps(evaluation))
    made = {key: played.manifest[key] for key in ("entry", "inputs", "metrics")}
    artifact.seal(played.folder, played.label, **made)
    record = root / ".runs/train-frostbite-spirl.json"
    later = json.loads(record.read_text()) | {"commit": "def", "wall_seconds": 7200.0}
    record.write_text(json.dumps(later))
    (added,) = add("frostbite-spirl", root=root, folder=tmp_path / "kept")
    assert added.name == "frostbite-spirl-seed-1.json" and first.read_bytes() == before
    runs = [seed.run for seed in read_measured(tmp_path / "kept")["frostbite-spirl"]]
    assert [(run.commit, run.hours) for run in runs] == [("abc", 1.0), ("def", 2.0)]


def test_a_seed_is_not_measured_again_until_it_suits(tmp_path: Path) -> None:
    add("frostbite-spirl", root=artifacts(tmp_path / "first"), folder=tmp_path)
    second = artifacts(tmp_path / "second", returns=400.0)
    with pytest.raises(FoveaError, match=r"seed-0\.json: seed 0 is measured already"):
        add("frostbite-spirl", root=second, folder=tmp_path)
    (seed,) = read_measured(tmp_path)["frostbite-spirl"]
    assert seed.games("mean").mean() == 4.0


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 3_000},
        {"features": {"max_ratio": 0.5}},
        {"epsilon": 0.05},
        {"update_every": 4},
    ],
)
def test_runs_at_other_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    root = artifacts(tmp_path / "artifacts", **change)
    with pytest.raises(FoveaError, match=rf"{next(iter(change))} not as in the recipes"):
        add("frostbite-spirl", root=root, folder=tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_a_policy_of_the_quick_recipe_only_is_refused(tmp_path: Path) -> None:
    file = one("frostbite-spirl", 0, [[1.0]]) | {"policy": "breakout-spirl"}
    with pytest.raises(FoveaError, match="breakout-spirl stands in none of"):
        read_measured(keep(tmp_path, file))


def test_an_evaluation_of_older_weights_is_refused(tmp_path: Path) -> None:
    root = artifacts(tmp_path / "artifacts")
    policy = root / "policies/frostbite-spirl"
    manifest = artifact.open_artifact("policies/frostbite-spirl", root).manifest
    artifact.seal(
        policy,
        "policies/frostbite-spirl",
        entry=manifest["entry"],
        inputs=manifest["inputs"],
        metrics={"trained": "again"},
    )
    with pytest.raises(FoveaError, match="not made from the policies/frostbite-spirl"):
        add("frostbite-spirl", root=root, folder=tmp_path)


def test_the_command_adds_from_another_clone_and_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = artifacts(tmp_path / "clone", steps=3_000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["results"])
    main()
    assert (tmp_path / RESULTS).read_text("utf-8") == page()
    before = sorted(measured.MEASURED.iterdir())
    words = ["results", "add", "frostbite-spirl", "--artifacts", str(root)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="steps not as in the recipes"):
        main()
    assert sorted(measured.MEASURED.iterdir()) == before
