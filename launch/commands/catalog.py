"""`vitrine catalog …`: check a catalog folder, import one, or write the demo catalog."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.importing.config import ImportConfig
from launch.commands.output import print_output_path
from launch.pipeline.config import WorldConfig


def _as_options(text: str) -> str:
    """A text in which the catalog's settings are named as these commands take them."""
    return text.replace("--catalog.", "--")


@contextmanager
def _own_options() -> Iterator[None]:
    """Names settings in errors as these commands take them."""
    try:
        yield
    except VitrineError as error:
        raise type(error)(_as_options(str(error))) from error


@dataclass(frozen=True)
class CatalogCheckOptions:
    folder: str
    """The catalog's folder."""


def catalog_check(options: CatalogCheckOptions, settings: CatalogConfig) -> None:
    from catalog.doctor.run import check_catalog, format_report

    with _own_options():
        report = format_report(check_catalog(replace(settings, path=options.folder)))
    print(_as_options(report))


@dataclass(frozen=True)
class CatalogImportOptions:
    source: str
    """Layout of the files; `vitrine catalog sources` lists them."""
    path: str
    """Folder or file to read, or a dataset's name."""
    output: str = ""
    """Folder to write the catalog to."""


def catalog_import(options: CatalogImportOptions, settings: ImportConfig) -> None:
    import sys

    from catalog.importing.run import format_counts, run_import

    if not options.output:
        raise VitrineError("--output is missing; name the folder to write the catalog to.")
    config = replace(settings, source=options.source, path=options.path)
    with _own_options():
        imported = run_import(config, Path(options.output))
    for note in imported.notes.listed if imported.is_new else []:
        print(f"vitrine: {_as_options(str(note))}", file=sys.stderr)
    if not imported.is_new:
        print("already imported, with these settings")
    print(format_counts(imported))
    print_output_path(imported.folder)


@dataclass(frozen=True)
class CatalogSourcesOptions:
    pass


def catalog_sources(options: CatalogSourcesOptions) -> None:
    from catalog.sources import SOURCES

    for name, source in SOURCES.items():
        print(f"{name}\n  {source.description}\n  {source.example}\n")


@dataclass(frozen=True)
class CatalogDemoOptions:
    folder: str
    """Folder to write the demo world to."""


def catalog_demo(options: CatalogDemoOptions, settings: WorldConfig) -> None:
    from catalog.demo import build_demo_world

    folder = Path(options.folder)
    build_demo_world(
        folder,
        seed=settings.seed,
        num_items=settings.num_items,
        num_users=settings.num_users,
    )
    print_output_path(folder)
