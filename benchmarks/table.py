"""Turns the records into RESULTS.md and fills the figures that README.md quotes from them.

Run `python -m benchmarks.table` to write both, with `--check` to fail where either does not agree with
the records, with `--stale` to list what README.md quotes of records whose sources have changed since.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS, ROOT, Figure, Record, holds, load_records

HEAD = """# Results

Each line is one claim, measured by one command and kept as one file in `benchmarks/results`. \
The goal is a list of comparisons; whether it is met is computed from the figures. A record is \
*stale* when a file that its figures depend on has changed since its commit: then it says what was \
measured, not what would be. This page is written by `python -m benchmarks.table`.
"""
OPENING = "<!-- record:"
QUOTE = re.compile(
    r"(?P<head><!-- record:(?P<name>[a-z0-9-]+) (?P<key>\w+)(?: (?P<spec>[^\s>]+))? -->)"
    r"(?P<value>[^\n]*?)<!-- /record -->"
)


def results_page(records: Sequence[Record]) -> str:
    """The content of RESULTS.md."""
    if not records:
        return HEAD + "\nNothing is recorded yet.\n"
    lines = ["", "| record | claim | goal | met | commit | date |", "|---|---|---|---|---|---|"]
    for record in records:
        goal = "<br>".join(f"`{comparison}`" for comparison in record.goal)
        link = f"[{record.name}](#{record.name})"
        met = _mark(record.met) + (", stale" if record.is_stale() else "")
        cells = [link, record.claim, goal, met, f"`{record.commit}`", record.date]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return HEAD + "\n".join(lines) + "\n" + "".join(_section(record) for record in records)


def _section(record: Record) -> str:
    seeds = ", ".join(str(seed) for seed in record.seeds) or "none"
    lines = ["", f"## {record.name}", "", record.claim, "", "```", record.command, "```", ""]
    lines += ["| figure | value | 95 % interval |", "|---|---:|---|"]
    lines += [
        f"| {_cell(key)} | {_cell(value)} | {around} |" for key, value, around in _rows(record)
    ]
    lines.append("")
    for comparison in record.goal:
        lines.append(f"- goal `{comparison}`: {_mark(holds(comparison, record.figures))}")
    lines += ["", f"Commit `{record.commit}`, {record.date}; {record.machine}; seeds {seeds}."]
    if record.carried:
        lines += [
            "",
            f"Carried over to `{record.carried}`: until there code was renamed and moved, and the golden "
            "runs (`tests/test_golden.py`) give the same bits.",
        ]
    if record.is_stale():
        lines += ["", "Stale: a file that these figures depend on has changed since."]
    lines += ["", record.note] if record.note else []
    return "\n".join(lines) + "\n"


def _rows(record: Record) -> list[tuple[str, str, str]]:
    """Rows (figure, value, interval); `x_low` and `x_high` become the interval of `x`."""
    figures = record.figures
    with_bounds = {x for x in figures if f"{x}_low" in figures and f"{x}_high" in figures}
    bounds = {f"{x}_{end}" for x in with_bounds for end in ("low", "high")}
    rows = []
    for key, value in figures.items():
        if key in bounds:
            continue
        around = ""
        if key in with_bounds:
            around = f"[{_text(figures[f'{key}_low'])}, {_text(figures[f'{key}_high'])}]"
        rows.append((key, _text(value), around))
    return rows


def _text(figure: Figure) -> str:
    if figure is None:
        return "–"
    if isinstance(figure, str):
        return figure
    return f"{figure:,}".replace(",", "\u2009") if isinstance(figure, int) else f"{figure:.4g}"


def _mark(met: bool) -> str:
    return "✓ met" if met else "✗ not met"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def fill_quotes(text: str, records: Sequence[Record]) -> str:
    """Fills every quoted figure of a text from its record.

    A quote is `<!-- record:NAME key SPEC -->VALUE<!-- /record -->` on one line; SPEC, a Python
    format such as `.1f`, may be left out. Raises ValueError where a quote names no record or
    figure, or cannot be read.
    """
    figures = {record.name: record.figures for record in records}

    def filled(quote: re.Match[str]) -> str:
        name, key, spec = quote["name"], quote["key"], quote["spec"] or ""
        value = figures.get(name, {}).get(key)
        if value is None:
            raise ValueError(f"a quote names {key!r} of record {name!r}, which has no such figure")
        return f"{quote['head']}{value:{spec}}<!-- /record -->"

    if len(QUOTE.findall(text)) != text.count(OPENING):
        raise ValueError(f"a quote that begins with {OPENING!r} is not closed or not well formed")
    return QUOTE.sub(filled, text)


def stale_quotes(text: str, records: Sequence[Record]) -> list[str]:
    """`line N: figure of record`, for each quote of a record whose sources have changed since."""
    stale = {record.name for record in records if record.is_stale()}
    return [
        f"line {number}: {quote['key']} of {quote['name']}"
        for number, line in enumerate(text.splitlines(), start=1)
        for quote in QUOTE.finditer(line)
        if quote["name"] in stale
    ]


def outdated_pages(root: Path = ROOT, results: Path = RESULTS) -> dict[Path, str]:
    """Page → its expected content, for each page that does not agree with the records."""
    records = load_records(results)
    expected: dict[Path, str] = {}
    if records or (root / "benchmarks" / "RESULTS.md").exists():
        expected[root / "benchmarks" / "RESULTS.md"] = results_page(records)
    readme = root / "README.md"
    if readme.exists():
        expected[readme] = fill_quotes(readme.read_text(encoding="utf-8"), records)
    return {
        path: text
        for path, text in expected.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if they differ")
    parser.add_argument("--stale", action="store_true", help="list README.md's stale quotes")
    options = parser.parse_args(arguments)
    if options.stale:
        quotes = stale_quotes((ROOT / "README.md").read_text(encoding="utf-8"), load_records())
        print(
            "\n".join(f"README.md {quote}" for quote in quotes) or "README.md quotes nothing stale"
        )
        return 1 if quotes else 0
    check = options.check
    stale = outdated_pages()
    for path, text in stale.items():
        if check:
            print(f"{path.name} does not agree with the records; run python -m benchmarks.table")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
