"""Plants faults in copies of the code, one at a time: do the tests that guard against them fail?

python -m benchmarks.mutants                   # all, and the record; resumes
python -m benchmarks.mutants --share 3/10      # a tenth of them, as CI runs
python -m benchmarks.mutants --only log-q-sign-flipped

An outcome holds until the mutant, the file it is planted in or a file of its tests changes.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from benchmarks.mutants.plan import Mutant, load_mutants, share_of
from benchmarks.mutants.trial import KILLED, SURVIVED, Trials
from benchmarks.record import ROOT, write_record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutants")
    parser.add_argument("--share", metavar="K/N", help="the K-th of N parts, as equal as may be")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=120, help="time-out of one test")
    parser.add_argument("--fresh", action="store_true", help="trust no outcome of an earlier run")
    parser.add_argument("--output", type=Path, default=Path("runs/mutants"))
    options = parser.parse_args()
    every = load_mutants()
    chosen = share_of(every, options.share) if options.share else every
    if options.only:
        if unknown := set(options.only) - {mutant.name for mutant in every}:
            parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
        chosen = [mutant for mutant in every if mutant.name in options.only]
    options.output.mkdir(parents=True, exist_ok=True)
    kept = Kept(options.output / "outcomes.json", fresh=options.fresh)
    run_all([m for m in chosen if kept.get(m) is None], kept, options.workers, options.seconds)
    outcomes = {mutant.name: kept.get(mutant) or "not run" for mutant in chosen}
    for name, outcome in outcomes.items():
        if outcome != KILLED:
            print(f"{name}: {outcome}")
    print(f"{Counter(outcomes.values())[KILLED]} of {len(outcomes)} killed")
    if chosen == every:
        record(every, outcomes)
    return 0 if set(outcomes.values()) == {KILLED} else 1


class Kept:
    """Outcomes by mutant, file and tests, on disk; those that tell nothing are kept for this run only."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.lock = path, Lock()
        known = path.exists() and not fresh
        self.outcomes: dict[str, str] = json.loads(path.read_text()) if known else {}
        self.now: dict[str, str] = {}

    def get(self, mutant: Mutant) -> str | None:
        key = mutant.key(ROOT)
        return self.outcomes.get(key) or self.now.get(key)

    def put(self, mutant: Mutant, outcome: str) -> None:
        with self.lock:
            final = outcome in (KILLED, SURVIVED)
            (self.outcomes if final else self.now)[mutant.key(ROOT)] = outcome
            self.path.write_text(json.dumps(self.outcomes, indent=1))
            print(f"{outcome}: {mutant.name}", flush=True)


def run_all(mutants: Sequence[Mutant], kept: Kept, workers: int, seconds: int) -> None:
    def work(part: int) -> None:
        mine = mutants[part::workers]
        if not mine:
            return
        with (
            tempfile.TemporaryDirectory(prefix="mutants-") as folder,
            Trials(ROOT, Path(folder), seconds=seconds) as trials,
        ):
            failing = trials.failing(list(dict.fromkeys(t for m in mine for t in m.tests)))
            for mutant in mine:
                why = next((failing[test] for test in mutant.tests if test in failing), None)
                kept.put(mutant, why or trials.outcome(mutant))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))


def record(mutants: Sequence[Mutant], outcomes: dict[str, str]) -> None:
    packages = Counter(mutant.file.split("/")[0] for mutant in mutants)
    killed = Counter(outcomes.values())[KILLED]
    files = {path for mutant in mutants for path in (mutant.file, *mutant.test_files)}
    write_record(
        "mutants",
        claim="Every planted fault makes a test fail.",
        command="python -m benchmarks.mutants",
        seeds=(),
        figures={
            "planted": len(mutants),
            "killed": killed,
            "survived": len(mutants) - killed,
            **{f"planted_in_{package}": count for package, count in sorted(packages.items())},
        },
        sources=["benchmarks/mutants/*", *sorted(files)],
        goal=["planted >= 80", "survived == 0"],
        note="Small patches, one at a time in a copy of the tree; each file still compiles, and the "
        "same tests pass without the patch. Killed: a test fails with it, by anything but a name or "
        "an import that is not there. All else counts as survived: also a time-out.",
    )


if __name__ == "__main__":
    sys.exit(main())
