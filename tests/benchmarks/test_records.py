"""Holds what is claimed to what was measured: records, RESULTS.md and the figures in README.md."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from benchmarks.carry import GOLDEN, carry, split_moves
from benchmarks.record import (
    ROOT,
    Figure,
    Record,
    describe_machine,
    flat_figures,
    goal_is_met,
    holds,
    load_records,
    write_record,
)
from benchmarks.sources import changed, matching, script_of, source_hash
from benchmarks.table import fill_quotes, outdated_pages, results_page, stale_quotes
from finetune.statistics import Interval

RECORDS = load_records()
FIGURES: dict[str, Figure] = {"ratio": 3.5, "ratio_low": 3.1, "people": 1500, "best": "lora"}


def planted(folder: Path, goal: tuple[str, ...] = ("ratio_low >= 3.0",)) -> Record:
    write_record(
        name="planted",
        claim="A planted claim with a | in it",
        command="python -m benchmarks.table",
        seeds=[1, 2, 3],
        figures={"ratio": Interval(3.5, 3.1, 3.9), "people": 1500, "best": "lora"},
        goal=goal,
        sources=["benchmarks/record.py"],
        note="Only for this test.",
        folder=folder,
    )
    (record,) = load_records(folder)
    return record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_recorded_claims_are_met_exactly_when_their_figures_say_so(record: Record):
    assert record.met is goal_is_met(record.goal, record.figures)
    texts = [record.claim, record.command, record.commit, record.date, record.machine]
    assert all(texts), f"{record.name} leaves a field empty"
    assert flat_figures(record.figures) == record.figures


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_records_name_no_folder_of_the_machine_they_were_made_on(record: Record):
    texts = [record.command, record.machine, record.note, *map(str, record.figures.values())]
    assert not [text for text in texts if re.search(r"(^|[\s='\"])/\w", text)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_records_name_the_benchmark_and_the_files_they_depend_on(record: Record):
    assert script_of(record.command) in record.sources
    assert len(record.sources) > 1
    assert matching(record.sources, ROOT)  # each matches a file that there is


def test_results_page_and_readme_agree_with_the_records():
    assert [path.name for path in outdated_pages()] == [], "run python -m benchmarks.table"


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("ratio_low >= 3.0", True),
        ("ratio_low >= 3.1", True),
        ("ratio_low > 3.1", False),
        ("ratio<4e0", True),
        ("ratio <= ratio_low", False),
        ("people == 1500", True),
        ('best == "lora"', True),
        ('best == "full"', False),
        ("ratio_low >= -1", True),
    ],
)
def test_a_goal_compares_a_figure_with_a_number_a_text_or_a_figure(comparison: str, expected: bool):
    assert holds(comparison, FIGURES) is expected


@pytest.mark.parametrize(
    "comparison",
    [
        "ratio_low",
        "ratio_low >= 3.0 or True",
        "__import__('os') == 1",
        "missing >= 1",
        "ratio >= nan",
        "best >= 1",
        "ratio => 3",
        "1 <= ratio <= 4",
    ],
)
def test_a_goal_that_says_something_else_is_refused(comparison: str):
    with pytest.raises(ValueError, match=r"goal|bound"):
        holds(comparison, FIGURES)


def test_one_missed_comparison_misses_the_goal_and_an_empty_goal_is_refused():
    assert goal_is_met(["ratio > 3", "people > 10"], FIGURES)
    assert not goal_is_met(["ratio > 3", "people > 2000"], FIGURES)
    with pytest.raises(ValueError, match="empty"):
        goal_is_met([], FIGURES)
    with pytest.raises(ValueError, match="missing"):  # also behind a comparison that misses
        goal_is_met(["ratio > 100", "missing > 1"], FIGURES)


def test_figures_that_are_not_finite_meet_nothing():
    figures = flat_figures({"ratio": Interval(float("inf"), 2.0, float("inf"))})
    assert figures == {"ratio": None, "ratio_low": 2.0, "ratio_high": None}
    assert not holds("ratio >= 0", figures)
    assert not holds("ratio_low <= ratio_high", figures)


def test_a_record_holds_every_field_and_computes_whether_it_is_met(tmp_path: Path):
    record = planted(tmp_path)
    stored = json.loads((tmp_path / "planted.json").read_text(encoding="utf-8"))
    assert list(stored) == [field.name for field in fields(Record)]
    assert record.met
    assert record.figures["ratio_low"] == 3.1
    assert not planted(tmp_path, goal=("ratio_low >= 3.2",)).met
    assert re.fullmatch(r"none|[0-9a-f]{7,}(-dirty)?", record.commit)
    assert re.search(r"\d+ cores, \d+ GiB RAM", describe_machine())


def test_a_record_without_a_field_is_refused(tmp_path: Path):
    planted(tmp_path)
    path = tmp_path / "planted.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["seeds"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ValueError, match="seeds"):
        load_records(tmp_path)


def test_results_page_tells_figures_with_intervals_goal_and_note(tmp_path: Path):
    page = results_page([planted(tmp_path)])
    assert "| ratio | 3.5 | [3.1, 3.9] |" in page
    assert "- goal `ratio_low >= 3.0`: ✓ met" in page
    assert "A planted claim with a \\| in it |" in page
    assert "Only for this test." in page


def test_a_wrong_figure_in_the_readme_is_detected(tmp_path: Path):
    results = tmp_path / "benchmarks" / "results"
    record = planted(results)
    (tmp_path / "benchmarks" / "RESULTS.md").write_text(results_page([record]), encoding="utf-8")
    readme = tmp_path / "README.md"
    right = "It is <!-- record:planted ratio .1f -->3.5<!-- /record --> times as good."
    readme.write_text(right, encoding="utf-8")
    assert outdated_pages(tmp_path, results) == {}
    readme.write_text(right.replace("3.5", "3.6"), encoding="utf-8")
    assert outdated_pages(tmp_path, results) == {readme: right}


def test_a_stale_results_page_is_detected(tmp_path: Path):
    results = tmp_path / "benchmarks" / "results"
    page = tmp_path / "benchmarks" / "RESULTS.md"
    record = planted(results)
    assert list(outdated_pages(tmp_path, results)) == [page]
    page.write_text(results_page([record]).replace("3.1", "3.2"), encoding="utf-8")
    assert list(outdated_pages(tmp_path, results)) == [page]


@pytest.mark.parametrize(
    ("quote", "expected"),
    [
        ("<!-- record:planted ratio -->?<!-- /record -->", "3.5"),
        ("<!-- record:planted ratio_low .2f -->?<!-- /record -->", "3.10"),
        ("<!-- record:planted ratio .0% --><!-- /record -->", "350%"),
        ("<!-- record:planted people , -->?<!-- /record -->", "1,500"),
        ("<!-- record:planted best -->?<!-- /record -->", "lora"),
    ],
)
def test_quotes_are_formatted_as_their_marker_says(tmp_path: Path, quote: str, expected: str):
    text = fill_quotes(f"{quote} and {quote}", [planted(tmp_path)])
    assert re.findall(r"-->([^<]*)<!-- /record", text) == [expected, expected]


@pytest.mark.parametrize(
    "quote",
    [
        "<!-- record:planted missing -->1<!-- /record -->",
        "<!-- record:unknown ratio -->1<!-- /record -->",
        "<!-- record:planted ratio -->3.5",
        "<!-- record:planted -->3.5<!-- /record -->",
    ],
)
def test_a_quote_of_nothing_is_refused(tmp_path: Path, quote: str):
    with pytest.raises(ValueError, match="quote"):
        fill_quotes(quote, [planted(tmp_path)])


def test_the_readme_quotes_no_stale_record():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    stale = stale_quotes(text, RECORDS)
    assert stale == [], "measure the record again, or delete the line; see benchmarks.table --stale"


SCRIPT = """\
\"\"\"Measures.\"\"\"
from benchmarks.record import write_record

def measure(people):
    \"\"\"Of each of them.\"\"\"
    return people * 2  # twice

write_record("planted", claim="It doubles", figures=measure(3), goal=["x > 1"], note="Once.")
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Measures.", "Measures it."),
        ("Of each of them.", "Of all."),
        ("  # twice", ""),
        ("\n\n", "\n\n\n"),
        ("It doubles", "It grows"),
        ("x > 1", "x > 2"),
        ('note="Once."', 'sources=["a.py"]'),
        ("import write_record", "import write_record\nfrom benchmarks.sources import IMAGES"),
    ],
)
def test_prose_goals_and_layout_make_no_record_stale(tmp_path: Path, old: str, new: str):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    before = source_hash(["*.py"], tmp_path)
    assert old in SCRIPT
    script.write_text(SCRIPT.replace(old, new), encoding="utf-8")
    assert not changed(["*.py"], before, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("* 2", "* 3"), ("people)", "people, twice=True)"), ('"planted"', '"sown"'), ("* 2", "+ 2")],
)
def test_a_changed_line_of_code_makes_a_record_stale(tmp_path: Path, old: str, new: str):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    before = source_hash(["*.py"], tmp_path)
    script.write_text(SCRIPT.replace(old, new, 1), encoding="utf-8")
    assert changed(["*.py"], before, tmp_path)


def test_other_files_count_by_every_byte_and_a_file_that_is_gone_or_new_counts(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yaml").write_text("steps: 1", encoding="utf-8")
    before = source_hash(["deep/*"], tmp_path)
    (tmp_path / "deep" / "a.yaml").write_text("steps: 1 ", encoding="utf-8")
    assert changed(["deep/*"], before, tmp_path)
    (tmp_path / "deep" / "a.yaml").write_text("steps: 1", encoding="utf-8")
    assert not changed(["deep/*"], before, tmp_path)
    (tmp_path / "deep" / "b.yaml").write_text("", encoding="utf-8")
    assert changed(["deep/*"], before, tmp_path)
    assert changed(["deep/c.yaml"], before, tmp_path)


def test_a_source_that_matches_no_file_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'finetune/loses\.py' matches no file"):
        source_hash(["finetune/loses.py"], ROOT)
    with pytest.raises(ValueError, match="runs no benchmark"):
        script_of("make all")
    assert script_of("python -m benchmarks.gpu.zero --x") == "benchmarks/gpu/zero.py"


def test_a_record_of_changed_sources_is_marked_stale_and_its_quotes_are_listed(tmp_path: Path):
    record = planted(tmp_path)
    quote = "<!-- record:planted ratio .1f -->3.5<!-- /record -->"
    assert not record.is_stale()
    assert "stale" not in results_page([record]).split("planted](", 1)[1]
    assert stale_quotes(f"\n{quote}", [record]) == []
    old = replace(record, source_hash="0" * 16)
    assert old.is_stale()
    page = results_page([old])
    assert "✓ met, stale |" in page
    assert "has changed since." in page.split("## planted")[1]
    assert stale_quotes(f"\n{quote} and {quote}", [old]) == ["line 2: ratio of planted"] * 2


BASELINES = re.compile(r"(popularity|item_knn|bpr_mf|vbpr)_(hr10|ndcg10)")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_readme_table_of_ranking_shows_every_baseline_its_record_ran(record: Record):
    text = (ROOT / "README.md").read_text(encoding="utf8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    quoted = set(re.findall(rf"<!-- record:{record.name} (\w+) ", rows))
    if any(figure.endswith(("_ndcg10", "_hr10")) for figure in quoted):
        ran = {match[1] for figure in record.figures if (match := BASELINES.fullmatch(figure))}
        shown = {match[1] for figure in quoted if (match := BASELINES.fullmatch(figure))}
        assert shown >= ran


def test_a_renamed_source_keeps_a_fresh_record_fresh_and_a_stale_one_stale(tmp_path: Path):
    base, now = tmp_path / "base", tmp_path / "now"
    for root, name in ((base, "old.py"), (now, "new.py")):
        (root / "tests/golden").mkdir(parents=True)
        (root / GOLDEN).write_text("{}")
        (root / name).write_text("told = 1" if root == base else "value = 1")
    record = planted(tmp_path / "results")
    fresh = replace(record, sources=["old.py"], source_hash=source_hash(["old.py"], base))
    stale = replace(fresh, source_hash="0" * 16)
    moves = {"old.py": ["new.py"]}
    carried = carry(fresh, moves, base, now)
    assert carried.sources == ["new.py", GOLDEN]
    assert not carried.is_stale(now)
    assert f"Carried over to `{carried.carried}`" in results_page([carried])
    assert carry(stale, moves, base, now).is_stale(now)
    with pytest.raises(ValueError, match=r"old\.py is gone"):
        carry(fresh, {}, base, now)
    (now / GOLDEN).write_text('{"texts": "other"}')
    assert carried.is_stale(now)


def test_a_split_file_has_several_successors():
    assert split_moves(["a.py=a.py,b.py"]) == [("a.py", ["a.py", "b.py"])]
