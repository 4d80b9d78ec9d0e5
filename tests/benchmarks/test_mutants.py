"""Planted faults can be planted, and a runner that finds a survivor says so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.mutants.plan import Mutant, load_mutants, share_of
from benchmarks.mutants.trial import KILLED, SURVIVED, TIMED_OUT, Trials
from benchmarks.sources import ROOT

MUTANTS = load_mutants()

CODE = """\
def double(number):
    return number * 2


def triple(number):
    return number * 3
"""
TESTS = """\
import pytest
from code_under_test import double, triple


def test_double():
    assert double(2) == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [0])
def test_triple_of_nothing(number):
    assert triple(number) == 0


def test_broken():
    assert double(2) == 5


@pytest.mark.skip
def test_skipped():
    assert False
"""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fault_can_be_planted_and_names_tests_that_exist(mutant: Mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    changed = mutant.applied(text)
    if mutant.file.endswith(".py"):
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), "it changes no code"
    for test in mutant.tests:
        file, _, name = test.partition("::")
        lines = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name.split('[')[0].split('::')[-1]}(" in lines, test


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    root = tmp_path_factory.mktemp("project")
    (root / "code_under_test.py").write_text(CODE)
    (root / "test_code.py").write_text(TESTS)
    settings = "[pytest]\npythonpath = .\nmarkers = slow\naddopts = --import-mode=importlib -m 'not slow'\n"
    (root / "pytest.ini").write_text(settings)
    with Trials(root, tmp_path_factory.mktemp("work"), imports=(), seconds=10) as made:
        yield made


def mutant(find: str, replace: str, *tests: str) -> Mutant:
    names = tuple(f"test_code.py::{test}" for test in tests)
    return Mutant("planted", "code_under_test.py", find, replace, names)


def test_a_fault_that_a_test_notices_is_killed_and_leaves_no_trace(trials: Trials):
    assert trials.outcome(mutant("* 2", "* 5", "test_double")) == KILLED
    assert (trials.copy / "code_under_test.py").read_text() == CODE
    assert trials.failing(["test_code.py::test_double"]) == {}


def test_a_fault_that_no_test_notices_survives_also_behind_a_marker(trials: Trials):
    assert trials.outcome(mutant("* 3", "* 9", "test_triple_of_nothing")) == SURVIVED
    assert trials.outcome(mutant("* 3", "+ 3", "test_triple_of_nothing")) == KILLED


@pytest.mark.parametrize(
    ("find", "replace", "expected"),
    [
        ("number", "x", "occurs 4 times"),
        ("nothing here", "x", "occurs 0 times"),
        ("return number * 2", "return number *", "no longer compiles"),
        ("number * 2", "unknown_name * 2", "does not fit"),
        ("def double", "def doubled", "does not fit"),
        ("number * 2", "__import__('os')._exit(0)", "ended their own process"),
    ],
)
def test_a_patch_that_does_not_fit_kills_nothing(
    trials: Trials, find: str, replace: str, expected: str
):
    assert expected in trials.outcome(mutant(find, replace, "test_double"))


def test_a_test_that_hangs_is_no_test_that_fails(trials: Trials):
    trials.seconds = 1
    slow = mutant("return number * 2", "import time; time.sleep(20)", "test_double")
    assert trials.outcome(slow) == TIMED_OUT
    trials.seconds = 10


def test_tests_that_fail_or_are_not_run_without_the_fault_prove_nothing(trials: Trials):
    good = ["test_code.py::test_double", "test_code.py::test_triple_of_nothing"]
    bad = ["test_code.py::test_broken", "test_code.py::test_skipped"]
    assert trials.failing([*good, *bad]).keys() == set(bad)
    assert trials.failing([good[0], "test_code.py::test_absent"]).keys() == {
        "test_code.py::test_absent"
    }


def test_shares_are_disjoint_and_together_all():
    parts = [share_of(MUTANTS, f"{k}/10") for k in range(1, 11)]
    assert sorted(m.name for part in parts for m in part) == sorted(m.name for m in MUTANTS)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ("0/10", "11/10", "3", "a/b"):
        with pytest.raises(ValueError, match="share"):
            share_of(MUTANTS, wrong)


def test_an_entry_that_is_no_mutant_is_refused(tmp_path: Path):
    entry = "- name: planted\n  file: a.py\n  find: a\n  replace: {}\n  tests: [test_a.py]\n"
    path = tmp_path / "planted.yaml"
    for text, expected in [
        (entry.format("a"), "no fault"),
        (entry.format("b") * 2, "twice"),
        (entry.format("b").replace("find", "search"), "not a mutant"),
        (entry.format("b").replace("tests", "test"), "not a mutant"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=expected):
            load_mutants(tmp_path)
