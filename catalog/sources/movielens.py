"""Reads GroupLens' ml-100k layout, and descriptions and posters of movies if present."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import read_table
from catalog.sources.base import RawTables
from catalog.sources.folder import existing_folder

GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
ITEM_COLUMNS = ["item_id", "title", "released", "released_on_video", "address", *GENRES]
RATING_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]


def movielens_tables(config: CatalogConfig) -> RawTables:
    """`u.item`, `u.data`, and if there `metadata.jsonl` (overview, plot) and `posters/<item>.jpg`.

    The category is the first genre; the text is the overview, or the plot where it is missing.
    """
    folder = existing_folder(config.path)
    for name in ("u.item", "u.data"):
        if not (folder / name).is_file():
            raise VitrineError(
                f"{folder} holds no {name}; the movielens source reads GroupLens' ml-100k layout."
            )
    notes = Notes()
    metadata = folder / "metadata.jsonl"
    item_files = [folder / "u.item", *([metadata] if metadata.is_file() else [])]
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[item_files[0], folder / "u.data", *item_files[1:]],
        item_files=item_files,
        read_items=partial(_read_movies, folder, config, notes),
        read_interactions=partial(
            _read_lines, folder / "u.data", "\t", RATING_COLUMNS, config, notes
        ),
        roles={"category": "genre", "text": ["words"], "image": "poster"},
        notes=notes,
    )


def _read_movies(folder: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    movies = _read_lines(folder / "u.item", "|", ITEM_COLUMNS, config, notes)
    flags = [pc.equal(movies[genre], "1") for genre in GENRES]
    first_genre = pc.case_when(pc.make_struct(*flags), *(pa.scalar(genre) for genre in GENRES))
    posters = pa.array(
        f"posters/{item}.jpg" if (folder / "posters" / f"{item}.jpg").exists() else None
        for item in movies["item_id"].to_pylist()
    )
    movies = movies.select(["item_id", "title"])
    movies = movies.append_column("genre", first_genre).append_column(
        "poster", posters.cast(pa.string())
    )
    return _describe(movies, folder / "metadata.jsonl", config, notes)


def _describe(movies: pa.Table, path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    """Adds metadata.jsonl's columns by movie id, and the column `words` (the overview, else the plot)."""
    if not path.is_file():
        return movies.append_column("words", pa.nulls(movies.num_rows, pa.string()))
    metadata = read_table(path, replace(config, encoding="auto"), notes)
    if "item_id" not in metadata.column_names:
        raise VitrineError(f"{path} has no column item_id; its rows cannot be matched to movies.")
    rows = pc.index_in(movies["item_id"], value_set=metadata["item_id"].cast(pa.string()))
    metadata = metadata.take(rows)
    for name in metadata.column_names:
        if name not in movies.column_names:
            movies = movies.append_column(name, metadata[name])
    descriptions = [movies[name] for name in ("overview", "plot") if name in movies.column_names]
    words = pc.coalesce(*descriptions) if descriptions else pa.nulls(movies.num_rows, pa.string())
    return movies.append_column("words", words)


def _read_lines(
    path: Path, delimiter: str, names: list[str], config: CatalogConfig, notes: Notes
) -> pa.Table:
    # GroupLens wrote u.item in Latin-1, and titles hold bare quotation marks.
    encoding = "latin-1" if config.encoding == "auto" else config.encoding
    rules = replace(config, encoding=encoding, delimiter=delimiter, quote="none", header="no")
    return read_table(path, rules, notes, names)
