"""Watches what this process opens and connects to, by Python's audit events."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT

READS = {"open", "os.listdir", "os.scandir", "os.open"}


class Watch:
    """Counts reads outside of the folders a parser may read, and connections, from `start` on."""

    def __init__(self, folder: Path) -> None:
        """`folder`: the one that holds the parsers' inputs. Python's own files may be read, too."""
        kept = [folder, ROOT, *sysconfig.get_paths().values(), sys.prefix, sys.base_prefix]
        kept += ["/proc", "/sys", "/dev/null", "/usr/share/zoneinfo", "/usr/lib/python3"]
        self.inside = tuple({os.path.realpath(one) for one in kept})
        self.outside: dict[str, int] = {}
        self.connections: dict[str, int] = {}
        self.is_watching = False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_watching:
            return
        if event in READS:
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                self._read(os.fsdecode(path))
        elif event == "socket.connect":
            place = str(arguments[1])
            self.connections[place] = self.connections.get(place, 0) + 1

    def _read(self, path: str) -> None:
        self.is_watching = False
        try:
            real = os.path.realpath(path)
            if not real.startswith(self.inside) and os.path.lexists(path):
                self.outside[path] = self.outside.get(path, 0) + 1
        except ValueError:  # a name that no file can have
            pass
        finally:
            self.is_watching = True
