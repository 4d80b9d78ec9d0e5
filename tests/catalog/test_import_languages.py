"""An import keeps the items in the languages that are wanted, and accounts for the others."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from catalog.errors import VitrineError
from catalog.importing import languages as languages_module
from catalog.importing import run as run_module
from catalog.importing.config import ImportConfig
from catalog.importing.run import Imported, format_counts, run_import

from .conftest import write_table

TITLES = {
    "en": "A soft cotton shirt with long sleeves for cool evenings, number {}",
    "de": "Ein weiches Hemd aus Baumwolle mit langen Ärmeln für kühle Abende, Nummer {}",
    "fr": "Une chemise en coton doux à manches longues pour les soirées fraîches, la {}",
    "?": "XK {}",
}
NUM = 40


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten items each in English, German, French and of a number alone; read in some five batches."""
    monkeypatch.setattr("catalog.reading.streams.BLOCK", 600)
    codes = list(TITLES)
    items = [
        {"item_id": f"{codes[n % 4]}{n}", "title": TITLES[codes[n % 4]].format(n)}
        for n in range(NUM)
    ]
    rows = [
        {"user_id": f"u{n % 9}", "item_id": items[n * 7 % NUM]["item_id"], "time": n}
        for n in range(160)
    ]
    folder = tmp_path / "shop"
    folder.mkdir()
    write_table(folder / "items.csv", items)
    write_table(folder / "interactions.csv", rows)
    return folder


def imported(shop: Path, name: str = "imported", **settings: Any) -> Imported:
    return run_import(ImportConfig(str(shop), **settings), shop.with_name(name))


def written(done: Imported, table: str) -> list[str]:
    return parquet.read_table(done.folder / f"{table}.parquet")["item_id"].to_pylist()


def kept_codes(done: Imported, table: str = "items") -> set[str]:
    return {one.rstrip("0123456789") for one in written(done, table)}


def test_items_in_other_languages_and_their_interactions_are_left_out_and_counted(
    shop: Path,
) -> None:
    done = imported(shop, languages=("en", "de"))
    assert kept_codes(done) == kept_codes(done, "interactions") == {"en", "de", "?"}
    assert done.counts["items"]["dropped"]["in another language"] == 10
    assert done.counts["items"]["written"] == len(written(done, "items")) == 30
    interactions = done.counts["interactions"]
    assert interactions["dropped"]["an item in another language"] == 40
    assert interactions["written"] == len(written(done, "interactions")) == 120
    assert "  an item in another language  " in format_counts(done)
    foreign, undecided = (
        note for note in done.notes.listed if "languag" in note.what or "too little" in note.what
    )
    assert (foreign.count, foreign.kind, len(foreign.examples)) == (10, "dropped", 3)
    assert foreign.examples[0].startswith("fr2: Une chemise")
    assert (undecided.count, undecided.examples) == (10, ("?3: XK 3", "?7: XK 7", "?11: XK 11"))


def test_without_languages_all_items_are_kept_and_no_text_is_read(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages_module, "likelihoods", None)
    assert len(written(imported(shop), "items")) == NUM


def test_items_without_id_are_of_no_language(shop: Path) -> None:
    with (shop / "items.csv").open("a") as file:
        file.write(f",{TITLES['fr'].format(1).replace(',', '')}\n")
    done = imported(shop, languages=("en",))
    assert done.counts["items"]["dropped"]["in another language"] == 20
    assert done.counts["items"]["dropped"]["no item_id"] == 1
    assert kept_codes(done) == {"en", "?"}


@pytest.mark.parametrize(("place", "after"), [("likelihoods", 2), ("drop_foreign", 0)])
def test_an_interrupted_import_judges_no_stored_text_again(
    shop: Path, place: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = imported(shop, "whole", languages=("en",))
    judged: list[int] = []
    judge = languages_module.likelihoods

    def counting(texts: Any) -> Any:
        judged.append(len(texts))
        return judge(texts)

    def stopping(*given: Any) -> Any:
        if place == "drop_foreign" or len(judged) >= after:
            raise KeyboardInterrupt
        return counting(*given)

    module = languages_module if place == "likelihoods" else run_module
    monkeypatch.setattr(languages_module, "likelihoods", counting)
    with monkeypatch.context() as patched:
        patched.setattr(module, place, stopping)
        with pytest.raises(KeyboardInterrupt):
            imported(shop, languages=("en",))
    assert 0 < sum(judged) <= NUM
    done = imported(shop, languages=("en",))
    assert sum(judged) == NUM
    assert written(done, "items") == written(expected, "items")
    assert (done.counts, done.notes.listed) == (expected.counts, expected.notes.listed)


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (("english",), "languages names 'english', which is not told apart"),
        (("en", "no"), "languages names 'no'"),
    ],
)
def test_an_unknown_language_is_refused(
    shop: Path, languages: tuple[str, ...], message: str
) -> None:
    with pytest.raises(VitrineError, match=message):
        imported(shop, languages=languages)


def test_items_without_texts_cannot_be_filtered(shop: Path) -> None:
    rows = (shop / "items.csv").read_text().splitlines()
    (shop / "items.csv").write_text("\n".join(row.split(",")[0] for row in rows) + "\n")
    with pytest.raises(VitrineError, match="the items have no column of text"):
        imported(shop, languages=("en",))
