"""Runs the parsers in processes of their own, and prints what each showed as a line of JSON.

python -m benchmarks.fuzz.run --examples 200 --only dates ids
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.fuzz import bombs, files, network, pictures, sources, values
from benchmarks.fuzz.kit import Parser, fuzz
from benchmarks.fuzz.watch import Watch

PARSERS: dict[str, Parser] = {
    **files.PARSERS,
    **values.PARSERS,
    **pictures.PARSERS,
    **sources.PARSERS,
    **network.PARSERS,
}
BOMBS = bombs.READER
EXTRA = {"import": sources.IMPORT, "bombs": BOMBS}
"""Run with inputs of their own number."""
ADDRESS_SPACE = 16 << 30
"""Bytes of addresses that a process may reserve; libraries reserve more than they use."""


def run_parser(name: str, parser: Parser, examples: int, number: int = 0) -> dict[str, Any]:
    """Fuzzes one parser in this process; returns what it showed, seconds of processor time, and peak MiB."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # files that no disk writes
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as top:
        folder = Path(top) / "folder"
        folder.mkdir()
        if parser is BOMBS:
            bombs.write_bombs(folder)
        else:
            parser.prepare(folder)
        noise = os.open(Path(top) / "noise", os.O_RDWR | os.O_CREAT)
        kept = os.dup(2)
        watch = Watch(folder)
        started = time.process_time()
        os.dup2(noise, 2)
        watch.is_watching = True
        try:
            if parser is BOMBS:
                findings = bombs.run_bombs(folder)
            else:
                findings = fuzz(parser, folder, examples, number)
        finally:
            watch.is_watching = False
            sys.stderr.flush()
            os.dup2(kept, 2)
        said = os.pread(noise, 2000, 0).decode("utf8", "replace")
        for descriptor in (noise, kept):
            os.close(descriptor)
    return {
        "parser": name,
        **asdict(findings),
        "seconds": time.process_time() - started,
        "outside": watch.outside,
        "connections": watch.connections,
        "private": list(network.PRIVATE),
        "noise": said,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_apart(names: list[str], examples: int, number: int) -> Iterator[dict[str, Any]]:
    """Each parser in a process forked from this one; a crash is one more finding."""
    for name in names:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                parser = {**PARSERS, **EXTRA}[name]
                json.dump(run_parser(name, parser, examples, number), pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        yield json.loads(text) if text else {"parser": name, "crash": status}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=list(PARSERS))
    arguments = parser.parse_args()
    for found in run_apart(arguments.only, arguments.examples, arguments.seed):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
