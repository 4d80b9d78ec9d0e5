"""`vitrine catalog …`: check a catalog folder, look into it, import one, or write the demo catalog."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

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
    json: str = ""
    """File to write the report to as JSON."""
    html: str = ""
    """File to write the report to as one HTML page."""
    tokenizer: str = ""
    """A tokenizer.json, a folder with one, or a model's name: texts with many unknown tokens are found."""
    encoder: str = ""
    """Folder of a pretrained encoder: images that do not fit their text are found."""
    fail_on: Literal["error", "warning", "hint", "never"] = "never"
    """Exit with status 1 where there is a finding of this severity or a worse one."""


def catalog_check(options: CatalogCheckOptions, settings: CatalogConfig) -> None:
    from catalog.doctor.finding import report_json
    from catalog.doctor.run import check_catalog, format_report

    config = replace(settings, path=options.folder)
    with _own_options():
        mismatch = _mismatch(options.encoder, config) if options.encoder else None
        report = check_catalog(config, tokenizer=options.tokenizer, mismatch=mismatch)
    print(_as_options(format_report(report)))
    if options.json:
        _write(options.json, report_json(report))
    if options.html:
        from launch.catalog_views.page import doctor_page

        _write(options.html, _as_options(doctor_page(report)))
    if options.fail_on != "never" and report.at_least(options.fail_on):
        raise SystemExit(1)


def _mismatch(encoder: str, config: CatalogConfig) -> Any:
    from catalog.catalog import load_catalog
    from launch.catalog_views.mismatch import mismatch_shares

    catalog = load_catalog(replace(config, unknown_items="drop"), quiet=True)
    return mismatch_shares(catalog, Path(encoder))


def _write(path: str, text: str) -> None:
    """Writes a file that is complete or not there; VitrineError where it cannot be."""
    from catalog.atomic_write import replace_file

    final = Path(path)
    partial = final.with_name(f"{final.name}.partial")
    with _writable(path):
        partial.write_text(text, encoding="utf8")
        replace_file(partial, final)


@contextmanager
def _writable(path: str) -> Iterator[None]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VitrineError(f"{path} cannot be written: {reason}; name another file.") from error


@dataclass(frozen=True)
class CatalogShowOptions:
    folder: str
    """The catalog's folder."""
    item: str = ""
    """Id of an item: every field of it, its popularity and its image are printed."""
    user: str = ""
    """Id of a user: their interactions are printed."""
    output: str = ""
    """PNG to write: a sheet of images; by default of a sample of items, and none for an item or a user."""


SHEET_ITEMS = 48


def catalog_show(options: CatalogShowOptions, settings: CatalogConfig) -> None:
    from catalog.catalog import load_catalog
    from launch.catalog_views.page import spread
    from launch.catalog_views.show import catalog_lines, item_lines, user_lines

    if options.item and options.user:
        raise VitrineError("--item and --user are both given; show one of them at a time.")
    with _own_options():
        config = replace(settings, path=options.folder, unknown_items="drop")
        catalog = load_catalog(config, quiet=True)
    output = options.output
    if options.item:
        shown = [catalog.item_index(options.item)]
        lines = item_lines(catalog, shown[0])
    elif options.user:
        user = catalog.user_index(options.user)
        lines = user_lines(catalog, user)
        shown = catalog.interactions.history(user)[-SHEET_ITEMS:].tolist()
    else:
        shown = spread(catalog.num_items, SHEET_ITEMS)
        lines = catalog_lines(catalog)
        output = output or f"{catalog.name}.png"
    print("\n".join(lines))
    if output:
        from launch.catalog_views.sheet import contact_sheet

        with _writable(output):
            contact_sheet(catalog, shown).save(output, "PNG")
        print_output_path(Path(output))


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
