"""Reads GroupLens' releases of MovieLens, and descriptions and posters of movies if present."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import Notes
from catalog.reading import batch_reader, read_table
from catalog.reading.encoding import is_utf8
from catalog.reading.streams import byte_blocks, recognize_compression
from catalog.sources.base import RawTables
from catalog.sources.batches import shape_batches
from catalog.sources.finding import find, refuse_subset
from catalog.sources.folder import existing_folder
from catalog.sources.shaping import (
    image_paths,
    join,
    lists_of,
    need_columns,
    renamed,
    split_text,
    with_column,
)

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
NO_GENRES = "(no genres listed)"
RELEASES = {
    "ml-100k": ("u.item", "u.data"),
    "ml-1m and ml-10m": ("movies.dat", "ratings.dat"),
    "ml-latest, ml-20m, ml-25m and ml-32m": ("movies.csv", "ratings.csv"),
}
"""Releases → their files of movies and of ratings."""


def movielens_tables(config: CatalogConfig) -> RawTables:
    """GroupLens' releases: `u.item` and `u.data` (100K), `movies.dat` and `ratings.dat` (1M, 10M),
    `movies.csv`, `ratings.csv` and `links.csv` (latest, 20M, 25M, 32M); and if there `metadata.jsonl`
    (`item_id`, `overview`, `plot` …) and `posters/<item>.jpg`. The categories are the genres; the text is
    the overview, or the plot where it is missing. `tags.csv` is not read, nor what is known of users.
    """
    refuse_subset(config, "movielens")
    folder = existing_folder(config.path)
    movies, ratings = _find_release(folder)
    metadata, links = find(folder, "metadata.jsonl"), find(folder, "links.csv")
    links = links if movies.name.lower().startswith("movies.csv") else None
    notes = Notes()
    extra = [path for path in (metadata, links) if path]
    if tags := find(folder, "tags.csv", "tags.dat"):
        notes.add(
            tags.name, "is not read: users wrote it, also after the interactions to be predicted"
        )
    in_batches = None
    match movies.name.lower().split(".")[1]:
        case "item":
            read: Callable[[], pa.Table] = partial(_flagged, movies, config, notes)
            rated = partial(_read_lines, ratings, "\t", RATING_COLUMNS, config, notes)
        case "dat":
            read = partial(_listed, movies, config, notes)
            rated = partial(_read_lines, ratings, "::", RATING_COLUMNS, config, notes)
        case _:
            read = partial(_with_header, movies, links, config, notes)
            rated = partial(_rated, ratings, config, notes)
            in_batches = shape_batches(
                batch_reader(ratings, config, notes), partial(_ratings, ratings), notes
            )
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[movies, ratings, *extra],
        item_files=[movies, *extra],
        read_items=lambda: _described(read(), folder, metadata, config, notes),
        read_interactions=rated,
        roles={"category": "genres", "text": ["words"], "image": "poster"},
        notes=notes,
        interaction_batches=in_batches,
    )


def _find_release(folder: Path) -> tuple[Path, Path]:
    """The files of movies and of ratings."""
    found = {name: (find(folder, one), find(folder, two)) for name, (one, two) in RELEASES.items()}
    for movies, ratings in found.values():
        if movies and ratings:
            return movies, ratings
    for name, pair in found.items():
        for path, other in zip(pair, reversed(RELEASES[name]), strict=True):
            if path:
                raise VitrineError(
                    f"{folder} holds no {other} beside {path.name}; the movielens source reads both."
                )
    expected = "; ".join(f"{' and '.join(names)} ({name})" for name, names in RELEASES.items())
    raise VitrineError(f"{folder} holds no release of MovieLens; expected {expected}.")


def _flagged(path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    """Movies of 100K, whose genres are columns of 0 and 1."""
    movies = _read_lines(path, "|", ITEM_COLUMNS, config, notes)
    flags = [pc.fill_null(pc.equal(movies[genre], "1"), False) for genre in GENRES]
    first = pc.case_when(pc.make_struct(*flags), *(pa.scalar(genre) for genre in GENRES))
    rows, numbers = np.nonzero(np.stack([flag.to_numpy() for flag in flags], axis=1))
    genres = lists_of(pa.array(rows), pa.array(GENRES).take(pa.array(numbers)), len(movies))
    movies = movies.select(["item_id", "title"])
    return movies.append_column("genre", first).append_column("genres", genres)


def _listed(path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    """Movies of 1M and 10M, whose genres are separated by bars."""
    movies = _read_lines(path, "::", ["item_id", "title", "genres"], config, notes)
    return with_column(movies, "genres", _genres(movies["genres"]))


def _with_header(path: Path, links: Path | None, config: CatalogConfig, notes: Notes) -> pa.Table:
    """Movies of the later releases, and their numbers at IMDb and TMDB."""
    movies = read_table(path, config, notes)
    need_columns(movies, ["movieId", "title", "genres"], path, "movielens")
    movies = with_column(
        renamed(movies, {"movieId": "item_id"}), "genres", _genres(movies["genres"])
    )
    if links is None:
        return movies
    return join(movies, "item_id", read_table(links, config, notes), "movieId")


def _genres(column: pa.ChunkedArray) -> pa.ChunkedArray:
    none = pc.equal(column, NO_GENRES)
    return split_text(pc.if_else(none, pa.scalar(None, column.type), column), "|")


def _rated(path: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    return _ratings(path, read_table(path, config, notes), notes)


def _ratings(path: Path, ratings: pa.Table, notes: Notes) -> pa.Table:
    need_columns(ratings, ["userId", "movieId", "rating", "timestamp"], path, "movielens")
    return renamed(ratings, {"userId": "user_id", "movieId": "item_id"})


def _described(
    movies: pa.Table, folder: Path, metadata: Path | None, config: CatalogConfig, notes: Notes
) -> pa.Table:
    posters = image_paths(movies["item_id"], folder, ["posters"])
    movies = movies.append_column("poster", posters)
    return _describe(movies, metadata, config, notes)


def _describe(movies: pa.Table, path: Path | None, config: CatalogConfig, notes: Notes) -> pa.Table:
    """Adds metadata.jsonl's columns by movie id, and the column `words` (the overview, else the plot)."""
    if path is None:
        return movies.append_column("words", pa.nulls(movies.num_rows, pa.string()))
    metadata = read_table(path, replace(config, encoding="auto"), notes)
    if "item_id" not in metadata.column_names:
        raise VitrineError(f"{path} has no column item_id; its rows cannot be matched to movies.")
    movies = join(movies, "item_id", metadata, "item_id")
    descriptions = [movies[name] for name in ("overview", "plot") if name in movies.column_names]
    words = pc.coalesce(*descriptions) if descriptions else pa.nulls(movies.num_rows, pa.string())
    return movies.append_column("words", words)


def _read_lines(
    path: Path, delimiter: str, names: list[str], config: CatalogConfig, notes: Notes
) -> pa.Table:
    # GroupLens wrote its older files in Latin-1, and titles hold bare quotation marks.
    encoding = config.encoding
    if encoding == "auto":
        blocks = byte_blocks(path, recognize_compression(path))
        encoding = "utf-8" if is_utf8(blocks) else "latin-1"
    rules = replace(config, encoding=encoding, delimiter=delimiter, quote="none", header="no")
    return read_table(path, rules, notes, names)
