"""Random inputs for every parser of the catalog, bombs, paths out of the folder, and hostile networks.

python -m benchmarks.data_fuzz        # about 8 minutes on one core
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.fuzz.run import PARSERS, run_apart
from benchmarks.record import RESULTS, write_record

EXAMPLES = 5000
PER_SOURCE = 1000
IMPORTS = 300
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    arguments = parser.parse_args()
    sources = [name for name in PARSERS if name.startswith("source ")]
    others = [name for name in PARSERS if name not in sources]
    found: list[dict[str, Any]] = []
    for names, examples in (
        (others, EXAMPLES),
        (sources, PER_SOURCE),
        (["import"], IMPORTS),
        (["bombs"], 0),
    ):
        for one in run_apart(names, examples, SEED):
            found.append(one)
            print(one["parser"], one.get("crash") or {key: one[key] for key in SHOWN}, flush=True)
    write_record(
        "data-fuzz",
        claim="Whatever files, values and servers hold, the catalog's parsers answer with one line or with "
        "content, alike each time, in bounded memory, and reach nothing outside.",
        command="python -m benchmarks.data_fuzz",
        seeds=[SEED],
        figures=figures(found, sources, others),
        goal=[
            f"examples_per_parser >= {EXAMPLES}",
            f"examples_of_sources >= {EXAMPLES}",
            "crashes == 0",
            "foreign_errors == 0",
            "bytes_on_stderr == 0",
            "reads_outside == 0",
            "private_connections == 0",
            "peak_mib <= 512",
        ],
        sources=[
            "benchmarks/fuzz/*.py",
            "catalog/reading/*.py",
            "catalog/values/*.py",
            "catalog/sources/*.py",
            "catalog/fetching/*.py",
            "catalog/yaml_files.py",
        ],
        note=f"Hypothesis, without shrinking; each parser in a process forked from one that holds pyarrow, "
        f"DuckDB and datasets, whose highest resident memory counts. examples_per_parser: the fewest of "
        f"{len(others)} parsers; the {len(sources)} layouts of sources have {PER_SOURCE:,} each. Foreign "
        "errors: anything but a VitrineError of one line, another answer to the same input (all, or a part "
        "for the slower parsers), rows that are not accounted for, and bombs that were read. Reads outside "
        "and connections are counted by audit events; addresses that the downloads dial, by a second check. "
        f"{IMPORTS} imports of edited layouts account for each row. Bombs: 10 GiB in gz, zst and bz2, zip "
        "archives with names and links outside, entities of XML, aliases of YAML, JSON 50,000 levels deep. "
        "Vectors in .npy files are read by pretrain, with torch, and are not among the parsers.",
        folder=arguments.output,
    )


SHOWN = ("examples", "refused", "faults", "inputs", "seconds", "outside", "private", "peak_mib")


def figures(found: list[dict[str, Any]], sources: list[str], others: list[str]) -> dict[str, float]:
    """The figures of the record, from what each parser showed."""
    by_name = {one["parser"]: one for one in found if "crash" not in one}
    whole = list(by_name.values())

    def examples(names: list[str]) -> list[int]:
        return [by_name[name]["examples"] if name in by_name else 0 for name in names]

    connections = [place for one in whole for place in one["connections"]]
    return {
        "parsers": len(others) + 1,
        "layouts_of_sources": len(sources),
        "examples_per_parser": min(examples(others)),
        "examples_of_sources": sum(examples(sources)),
        "examples_of_imports": sum(examples(["import"])),
        "bombs": sum(examples(["bombs"])),
        "refused": sum(one["refused"] for one in whole),
        "crashes": len(found) - len(whole),
        "foreign_errors": sum(sum(one["faults"].values()) for one in whole),
        "bytes_on_stderr": sum(len(one["noise"]) for one in whole),
        "reads_outside": sum(sum(one["outside"].values()) for one in whole),
        "private_connections": len(connections) + sum(len(one["private"]) for one in whole),
        "peak_mib": max(one["peak_mib"] for one in whole),
        "processor_minutes": sum(one["seconds"] for one in whole) / 60,
    }


if __name__ == "__main__":
    main()
