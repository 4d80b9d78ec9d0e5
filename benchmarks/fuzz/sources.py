"""The sources, on small copies of their layouts of which one file is edited."""

from pathlib import Path

from hypothesis import strategies as st

from benchmarks.fuzz.edits import Edit, apply_edits, edits
from benchmarks.fuzz.kit import Parser
from benchmarks.fuzz.layouts import LAYOUTS
from catalog.config import CatalogConfig
from catalog.conversion.convert import convert
from catalog.importing.config import ImportConfig
from catalog.importing.run import run_import
from catalog.sources import SOURCES


def _config(layout: str, folder: Path) -> CatalogConfig:
    inside, subset, _ = LAYOUTS[layout]
    source = layout if layout in SOURCES else layout.rpartition("-")[0]
    return CatalogConfig(str(folder / inside), source, subset, unknown_items="drop")


def write_layout(layout: str, folder: Path, number: int, changes: list[Edit]) -> None:
    """Writes the files of a layout, of which the one with this number is edited."""
    files = LAYOUTS[layout][2]
    for place, (name, content) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(apply_edits(content, changes) if place == number % len(files) else content)


def _source(layout: str) -> Parser:
    def parse(given: tuple[int, list[Edit]], folder: Path) -> object:
        write_layout(layout, folder, *given)
        config = _config(layout, folder)
        raw = SOURCES[config.source].tables(config)
        made = convert(raw, config)
        histories = made.histories
        assert made.items is not None
        assert len(histories.item_rows) == histories.counts.sum() == len(histories.times)
        arrays = [histories.counts, histories.item_rows, histories.times, histories.ratings]
        return (
            made.items.items.to_pydict(),
            histories.user_ids.to_pylist(),
            [None if array is None else array.tolist() for array in arrays],
            raw.notes.listed,
        )

    return Parser(st.tuples(st.integers(0, 5), edits()), parse, again=10)


def _import(given: tuple[str, int, list[Edit], float | None], folder: Path) -> object:
    """Every row that an import reads is written, or dropped for a reason."""
    layout, number, changes, rating = given
    write_layout(layout, folder / layout, number, changes)
    config = _config(layout, folder / layout)
    settings = {"source": config.source, "subset": config.subset, "unknown_items": "drop"}
    output = folder / "out" / str(len(list((folder / "out").iterdir())))
    made = run_import(ImportConfig(config.path, min_rating=rating, **settings), output)  # pyright: ignore
    for table in ("interactions", "items"):
        counts = made.counts[table]
        assert counts["read"] == counts["written"] + sum(counts["dropped"].values())
    return made.counts, made.notes.listed


PARSERS = {f"source {layout}": _source(layout) for layout in LAYOUTS}
IMPORT = Parser(
    st.tuples(
        st.sampled_from(["folder", "recbole", "shopify", "amazon-2014"]),
        st.integers(0, 5),
        edits(),
        st.sampled_from([None, 3.0]),
    ),
    _import,
    again=10,
    prepare=lambda folder: (folder / "out").mkdir(),
)
