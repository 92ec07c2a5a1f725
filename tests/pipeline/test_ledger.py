"""The page of results: what is rendered from which runs."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from pipeline.commands.results import RESULTS, page
from pipeline.results.claims import read_claims
from pipeline.results.judged import Measured, compare, count
from pipeline.results.measured import read_measured
from pipeline.results.render import fragment, render
from pipeline.results.verdict import Gap
from tests.pipeline.kept_seeds import PAPER, fifty, keep, one

SUCCESS = """
paper: "A: paper"
tables:
  - {name: T, recipe: spirl, protocol: success, trials: 0, why: later, brief: later, note: "",
     scores: {frostbite-spirl: [SPIRL, Frostbite, null, null]}, comparisons: []}
lines: []
"""


def test_results_are_rendered_from_what_is_committed() -> None:
    assert RESULTS.read_text("utf-8") == page()


def pages(tmp_path: Path) -> Measured:
    note = "worse | <script>alert(1)</script>"
    above = [one("frostbite-spirl", s, [[700.0 + s, 710.0]], note=note) for s in range(3)]
    below = [one("frostbite-der", s, [[300.0 + s, 310.0]]) for s in range(3)]
    few = [one("mspacman-spirl", 0, [[900.0]], note=note), one("mspacman-der", 0, [[950.0]])]
    return Measured(read_measured(keep(tmp_path, *above, *below, *few)), {}, {})


def test_a_page_with_runs_shows_them(tmp_path: Path) -> None:
    claims, kept = read_claims(PAPER), pages(tmp_path)
    found = [one for one in compare(claims, kept) if not one.table.own]
    assert count(found) == {
        "reproduced": 1,
        "not reproduced": 0,
        "under-powered": 1,
        "not run": len(found) - 2,
    }
    page = render([claims], kept)
    assert "1 reproduced, 0 not reproduced, 1 under-powered" in page
    assert "Seeds so far: 8, of 4 of the" in page
    assert "| Frostbite | SPIRL above DE-Rainbow | +328.1 | +400.0 |" in page
    assert "**reproduced**" in page and "`abc`" in page
    gap = Gap(1015.2 - 904.1, (286.4, 124.3))
    assert (
        f"too few seeds | **under-powered**, {gap.seeds_needed} seeds a side would tell |" in page
    )
    row = "| Frostbite | SPIRL above DE-Rainbow-P | +185.8 |  |  | not run, "
    assert f"{row}{claims.tables[0].brief}: DE-Rainbow-P |" in page
    assert "| Frostbite | 65.2 | 1.5 | 4,334.7 |" in page  # the scale of scores
    partly = page[page.index("### Table 2, 100K") : page.index("### Table 2, 400K")]
    assert "Not run, where it says so: 100,000 steps" in partly


def test_a_difference_that_is_not_there_names_the_seeds_it_takes(tmp_path: Path) -> None:
    seeds = [
        one(name, s, [[300.0 + s]])
        for name in ("frostbite-spirl", "frostbite-der")
        for s in range(3)
    ]
    page = render([read_claims(PAPER)], Measured(read_measured(keep(tmp_path, *seeds)), {}, {}))
    needed = Gap(669.5 - 341.4, (731.7, 277.8)).seeds_needed
    assert f"**not reproduced**, {needed} seeds a side would tell |" in page


def test_rates_of_success_stand_beside_the_random_policy_s(tmp_path: Path) -> None:
    seeds = [one("frostbite-spirl", s, [[1.0]]) for s in range(2)]
    for seed in seeds:
        seed["random"]["successes"] = fifty([0.0, 0.0, 0.0, 0.0, 1.0])
        seed["checkpoints"][0]["successes"] = fifty([0.0, 1.0])
    path = tmp_path / "paper.yaml"
    path.write_text(SUCCESS)
    kept = tmp_path / "kept"
    kept.mkdir()
    page = render([read_claims(path)], Measured(read_measured(keep(kept, *seeds)), {}, {}))
    assert "| Frostbite | SPIRL | no number | 0.50 [" in page
    assert "\nThe uniform random policy, here: 0.20 on Frostbite.\n" in page
    path.write_text(SUCCESS.replace("success", "mean"))
    page = render([read_claims(path)], Measured(read_measured(kept), {}, {}))
    assert "The uniform random policy" not in page


def test_games_that_a_simulation_ended_are_told(tmp_path: Path) -> None:
    whole, ended = one("frostbite-der", 0, [[1.0]]), one("frostbite-der", 1, [[1.0]])
    ended["checkpoints"][-1]["unstable"] = 2
    page = render([], Measured(read_measured(keep(tmp_path, whole, ended)), {}, {}))
    assert page.count("2 games ended where MuJoCo became unstable |") == 1


def test_a_verdict_says_how_many_of_its_seeds_failed(tmp_path: Path) -> None:
    """Those without a checkpoint count as the random policy, which makes it easy to be above."""
    ours = [one("frostbite-spirl", s, [[700.0 + s, 710.0]]) for s in range(3)]
    theirs = [one("frostbite-der", s, [], failed="the loss is not finite") for s in range(3)]
    kept = Measured(read_measured(keep(tmp_path, *ours, *theirs)), {}, {})
    assert "**reproduced**, 3 of 6 seeds failed |" in render([read_claims(PAPER)], kept)


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
