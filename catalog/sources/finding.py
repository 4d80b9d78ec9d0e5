"""Finds the files of a layout: whatever the case of their names, packed or not, and parts by name."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean
from catalog.reading.streams import SUFFIXES

T = TypeVar("T")


def plain_name(path: Path) -> str:
    """A file's name without the ending of a compression: a.csv.gz → a.csv."""
    for ending in SUFFIXES:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def files_in(folder: Path, depth: int = 0) -> list[Path]:
    """The files of a folder in order of their names, and those of its folders `depth` levels down.

    Hidden files are left out, and of a file that lies there packed and unpacked, the packed one is.
    """
    if not folder.is_dir():
        return []
    files: dict[str, Path] = {}
    below: list[Path] = []
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name[0] in "._":
            continue
        if path.is_file():
            key = plain_name(path).lower()
            files[key] = path if key not in files or plain_name(path) == name else files[key]
        elif depth and path.is_dir():
            below += files_in(path, depth - 1)
    return [*files.values(), *below]


def find(folder: Path, *names: str) -> Path | None:
    """The first of these files that the folder holds; a name may lead through folders, as in a/b.csv."""
    for name in names:
        *parts, last = name.lower().split("/")
        place: Path | None = folder
        for part in parts:
            inside = sorted(place.iterdir()) if place and place.is_dir() else []
            place = next((one for one in inside if one.name.lower() == part), None)
        for path in files_in(place) if place else []:
            if plain_name(path).lower() == last:
                return path
    return None


def need(folder: Path, *names: str, source: str) -> Path:
    """The same; VitrineError, with the nearest names, where there is none."""
    found = find(folder, *names)
    if found is None:
        raise missing(folder, " or ".join(names), source, names[0])
    return found


def missing(folder: Path, what: str, source: str, name: str = "") -> VitrineError:
    """The error that a folder holds no file of this description."""
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    hint = did_you_mean(name or what, there)
    return VitrineError(f"{folder} holds no {what}, which the source {source} reads.{hint}")


def choose(parts: Mapping[str, T], config: CatalogConfig, where: Path, noun: str) -> tuple[str, T]:
    """The part that `config.subset` names, or the only one, with its name.

    Raises VitrineError for an unknown one, and where there are several and none is named.
    """
    names = {name.lower(): name for name in parts}
    wanted = config.subset.strip().lower()
    if wanted:
        if wanted not in names:
            raise VitrineError(
                f"catalog.subset {config.subset!r} is no {noun} of {where}."
                f"{did_you_mean(config.subset, parts)}"
            )
        return names[wanted], parts[names[wanted]]
    if len(parts) > 1:
        listed = ", ".join(list(parts)[:20]) + (" …" if len(parts) > 20 else "")
        raise VitrineError(
            f"{where} holds {len(parts)} {noun}s: {listed}; name one, such as "
            f"--catalog.subset {next(iter(parts))}."
        )
    return next(iter(parts.items()))


def refuse_subset(config: CatalogConfig, source: str) -> None:
    """Raises VitrineError if a subset is named for a source that has none."""
    if config.subset:
        raise VitrineError(
            f"catalog.subset is {config.subset!r}, but the source {source} has no subsets; leave it out."
        )


def defaults(config: CatalogConfig, **rules: Any) -> CatalogConfig:
    """The config with these rules of reading, where it does not set them itself."""
    given = {name: rule for name, rule in rules.items() if getattr(config, name) == "auto"}
    return replace(config, **given)
