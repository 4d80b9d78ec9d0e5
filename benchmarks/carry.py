"""Keeps records fresh over a pure renaming of code, if the golden runs give the same bits.

python -m benchmarks.carry BASE                             # BASE: the commit before the renaming
python -m benchmarks.carry BASE --moved a.py=a.py,b.py      # a.py was split into a.py and b.py

A record that was fresh at BASE is fresh again: it depends on the files by their new names and on
`tests/golden/digests.json`, and its page says that it was carried. A stale record only gets the new
names. The golden runs (`tests/test_golden.py`) are run first; digests that differ from BASE's end it.
"""

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.record import RESULTS, ROOT, Record, commit, load_records
from benchmarks.sources import changed, source_hash

GOLDEN = "tests/golden/digests.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="the commit before the renaming")
    parser.add_argument("--moved", action="append", default=[], metavar="OLD=NEW,NEW")
    options = parser.parse_args(arguments)
    if _git("diff", options.base, "--", GOLDEN):
        print(f"{GOLDEN} differs from that of {options.base}: measure again", file=sys.stderr)
        return 1
    golden_test = ["-m", "pytest", "-q", "-m", "slow", "tests/test_golden.py"]
    tested = subprocess.run(
        [sys.executable, *golden_test], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tested.returncode or "1 passed" not in tested.stdout:
        print(tested.stdout[-2000:], file=sys.stderr)
        return 1
    moves = renames(options.base) | dict(split_moves(options.moved))
    with TemporaryDirectory() as folder:
        archive = _git("archive", options.base)
        with tarfile.open(fileobj=BytesIO(archive)) as tree:
            tree.extractall(folder, filter="data")
        for record in load_records():
            carried = carry(record, moves, Path(folder))
            text = json.dumps(asdict(carried), indent=2, ensure_ascii=False, allow_nan=False)
            (RESULTS / f"{record.name}.json").write_text(text + "\n", encoding="utf-8")
            print(f"{record.name}: {'stale' if carried.is_stale() else 'fresh'}")
    return 0


def carry(
    record: Record, moves: Mapping[str, Sequence[str]], base: Path, root: Path = ROOT
) -> Record:
    """The record with its sources' new names; fresh in `root` where it was fresh in the tree `base`.

    Raises ValueError where a source is gone and `moves` does not name its successors.
    """
    sources = [new for old in record.sources for new in _successors(old, moves, root)]
    if changed(record.sources, record.source_hash, base):
        return replace(record, sources=sorted(set(sources)))
    sources = sorted({*sources, GOLDEN})
    return replace(
        record, sources=sources, source_hash=source_hash(sources, root), carried=commit()
    )


def _successors(source: str, moves: Mapping[str, Sequence[str]], root: Path) -> Sequence[str]:
    if source in moves:
        return moves[source]
    if not any(root.glob(source)):
        raise ValueError(f"{source} is gone; say where it went with --moved {source}=NEW,NEW")
    return [source]


def renames(base: str) -> dict[str, list[str]]:
    """Old path → new path of the files that git finds renamed since the commit."""
    lines = _git("diff", "-M40%", "--name-status", "--diff-filter=R", base).decode().splitlines()
    return {old: [new] for _, old, new in (line.split("\t") for line in lines)}


def split_moves(written: Sequence[str]) -> list[tuple[str, list[str]]]:
    """`OLD=NEW,NEW` as (old, [new, new])."""
    pairs = (text.partition("=") for text in written)
    return [(old, new.split(",")) for old, _, new in pairs]


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
