"""Searching the code for a standard term leads to the module that implements it.

CONTRIBUTING.md lists a module for each term. Here the term is searched as a newcomer would, in names
(identifiers and file names), docstrings and the strings under config fields, and the listed module must
be among the first three files by number of hits.
"""

import ast
import functools
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog", "pretrain", "finetune", "generate", "launch")
FIRST = 3
"""The module has to be among so many files with the most hits."""

OTHER_FORMS = {
    "deduplication": ["deduplicate", "deduplicated", "duplicate"],
    "VAE/codec": ["codec"],
    "embedding": ["embed"],
    "KV cache": ["key-value cache"],
    "ANN index": ["approximate nearest neighbour", "approximate nearest neighbor", "vector index"],
    "resume": ["resumed", "resuming"],
    "missing modality": ["missing modalities", "drop modality"],
    "modality fusion": ["fusion", "fuse"],
    "constrained decoding": ["constrained beam search"],
    "log-q correction": ["logq correction"],
    "hard negative masking": ["masked negatives", "negative mask", "hard negative mask"],
    "negative sampling": ["sampled negative"],
    "leave-one-out": [],
    "temporal split": ["global time split"],
    "adapter swap": ["swap adapters", "adapter swapping"],
    "elastic": ["elasticity"],
    "memory plan": ["plan memory", "memory planning"],
}
"""Further forms of a term that count as the term itself."""

ROW = re.compile(r"^\| (?P<term>[^|]+?) \| (?P<modules>`[^|]+`) \|", re.MULTILINE)


def listed_modules() -> dict[str, list[str]]:
    """Term → modules, from the table "Where is it?" of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    _, _, section = text.partition("## Where is it?")
    section = section.partition("\n## ")[0]
    return {row["term"]: re.findall(r"`([^`]+)`", row["modules"]) for row in ROW.finditer(section)}


def pattern_of(term: str) -> re.Pattern[str]:
    """Space, hyphen and underscore alike; a plural of the last word is the word."""
    forms = [term, *OTHER_FORMS.get(term, [])]
    joined = [r"[\s_-]*".join(map(re.escape, re.split(r"[\s_-]+", form))) for form in forms]
    return re.compile(rf"(?<![a-z])(?:{'|'.join(joined)})(?:e?s)?(?![a-z])", re.IGNORECASE)


def in_words(name: str) -> str:
    """`KVCache` → `KV Cache`, `ema_decay` → `ema decay`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return spaced.replace("_", " ")


def docstrings(source: str) -> list[str]:
    """Strings that stand alone as a statement: docstrings, and those under fields."""
    return [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


@functools.cache
def searchable() -> dict[str, tuple[list[str], list[str]]]:
    """File → (its names, its docstrings)."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        source = path.read_text(encoding="utf8")
        names = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.NAME
        ]
        relative = path.relative_to(ROOT)
        found[relative.as_posix()] = ([*relative.with_suffix("").parts, *names], docstrings(source))
    return found


def count_hits(term: str) -> Counter[str]:
    """File → how often the term stands in its names and docstrings."""
    pattern = pattern_of(term)
    hits: Counter[str] = Counter()
    for file, (names, docs) in searchable().items():
        in_names = sum(
            bool(pattern.search(name) or pattern.search(in_words(name))) for name in names
        )
        hits[file] = in_names + sum(len(pattern.findall(doc)) for doc in docs)
    return hits


def first_files(term: str) -> list[str]:
    """The files with the most hits; where several have equally many, all of them count."""
    ranked = [(file, number) for file, number in count_hits(term).most_common() if number]
    least = ranked[min(FIRST, len(ranked)) - 1][1] if ranked else 0
    return [file for file, number in ranked if number >= least]


def test_contributing_lists_forty_terms() -> None:
    assert len(listed_modules()) >= 40


@pytest.mark.parametrize(("term", "modules"), listed_modules().items(), ids=listed_modules())
def test_a_search_for_the_term_finds_its_module(term: str, modules: list[str]) -> None:
    missing = [module for module in modules if not (ROOT / module).exists()]
    assert not missing, f"CONTRIBUTING.md lists {missing} for '{term}', which does not exist"
    first = first_files(term)
    assert set(first) & set(modules), f"'{term}' leads to {first}, not to {modules}"


def test_a_term_is_found_in_any_spelling() -> None:
    for spelling in ("kv cache", "kv_cache", "KV-cache", "kv caches", "KVCache"):
        assert pattern_of("KV cache").search(in_words(spelling)), spelling
    assert not pattern_of("EMA").search("schema")
    assert not pattern_of("resume").search("presumed")


def test_comments_and_other_strings_do_not_count() -> None:
    source = '"""A cache."""\n# elastic\nx = "elastic"\n'
    assert docstrings(source) == ["A cache."]
