"""Sources of large datasets are read in batches that hold what the whole table holds."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from catalog.config import CatalogConfig
from catalog.sources import SOURCES

from .sources_kit import write

NUM = 400


def hm(folder: Path) -> None:
    articles = "".join(f"{n:010},Shirt {n}\n" for n in range(9))
    rows = "".join(f"2020-09-{n % 28 + 1:02},u{n % 7},{n % 9},0.05\n" for n in range(NUM))
    write(
        folder,
        {
            "articles.csv": f"article_id,prod_name\n{articles}",
            "transactions_train.csv": f"t_dat,customer_id,article_id,price\n{rows}",
        },
    )


def movielens(folder: Path) -> None:
    movies = "".join(f"{n},Film {n},Drama|Crime\n" for n in range(9))
    rows = "".join(f"{n % 7},{n % 9},{n % 5 + 0.5},{1_000_000_000 + n}\n" for n in range(NUM))
    write(
        folder,
        {
            "movies.csv": f"movieId,title,genres\n{movies}",
            "ratings.csv": f"userId,movieId,rating,timestamp\n{rows}",
        },
    )


def pixelrec(folder: Path) -> None:
    rows = "".join(f"v{n % 9},u{n % 7},{1_600_000_000 + n}\n" for n in range(NUM))
    write(
        folder,
        {
            "interactions/Pixel1.csv": f"item_id,user_id,timestamp\n{rows}",
            "items/Pixel1.csv": "item_id,title,tag,description\nv0,T,a,d\n",
        },
    )


def two_tables(folder: Path) -> None:
    rows = "".join(f"u{n % 7};v{n % 9};{n}\n" for n in range(NUM))
    write(
        folder,
        {
            "things.csv": "item_id,title\n" + "".join(f"v{n},T\n" for n in range(9)),
            "ratings.csv": f"user_id;item_id;time\n{rows}",
        },
    )


@pytest.mark.parametrize(
    ("source", "lay_out", "path"),
    [
        ("hm", hm, ""),
        ("movielens", movielens, ""),
        ("pixelrec", pixelrec, ""),
        ("table", two_tables, "things.csv"),
    ],
)
def test_batches_of_interactions_are_the_table_and_say_the_same(
    tmp_path: Path,
    source: str,
    lay_out: Callable[[Path], None],
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 1000)
    lay_out(tmp_path)
    config = CatalogConfig(str(tmp_path / path), source=source)
    whole, parts = (SOURCES[source].tables(config) for _ in range(2))
    assert parts.interaction_batches is not None
    expected = whole.read_interactions()
    for _ in range(2):  # they can be read again and again, and say nothing twice
        batches = list(parts.interaction_batches())
        assert len(batches) > 3
        assert pa.Table.from_batches(batches).equals(expected.combine_chunks())
    assert [str(note) for note in parts.notes.listed] == [str(note) for note in whole.notes.listed]
    assert expected.num_rows == NUM
