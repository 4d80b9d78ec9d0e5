"""Files as shops have them, read as a whole: folder in, catalog out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError

ITEMS = "item_id,title,price\ni0,Mug,1\ni1,Pot,2\ni2,Pan,3\n"
LOG = "user_id,item_id,timestamp\nu0,i0,1\nu0,i1,2\nu1,i2,3\nu1,i0,4\n"


def shop(folder: Path, **config: object) -> Catalog:
    return load_catalog(CatalogConfig(path=str(folder), **config))  # type: ignore[arg-type]


def write(folder: Path, items: str = ITEMS, log: str = LOG, file: str = "items.csv") -> Path:
    """A shop with these tables; `file` holds the items."""
    (folder / file).write_bytes(items.encode("utf8"))
    (folder / "interactions.csv").write_bytes(log.encode("utf8"))
    return folder


def titles(catalog: Catalog) -> list[str | None]:
    return catalog.items["title"][:]


def said(catalog: Catalog) -> str:
    return "\n".join(map(str, catalog.notes))


def test_a_plain_shop_has_nothing_to_note(tmp_path: Path) -> None:
    catalog = shop(write(tmp_path))
    assert catalog.notes == []
    assert titles(catalog) == ["Mug", "Pot", "Pan"]


def test_a_stray_quote_keeps_every_row(tmp_path: Path) -> None:
    rows = ["i0\tA", "i1\tB", 'i2\t"He said it works', "i3\tC", "i4\tD", "i5\tE"]
    items = "item_id\ttitle\n" + "\n".join(rows) + "\n"
    catalog = shop(write(tmp_path, items, file="items.tsv"))
    assert catalog.num_items == 6
    assert titles(catalog)[2] == '"He said it works'


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    items = 'item_id;title;price\ni0;"Mug; old";12,50\ni1;Pot;9,90\ni2;Pan;"1.250,00"\n'
    catalog = shop(write(tmp_path, items))
    assert titles(catalog)[0] == "Mug; old"
    assert catalog.items["price"][:] == [12.5, 9.9, 1250.0]


def test_cp1252_is_read_and_said(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "items.csv").write_bytes(
        "item_id,title\ni0,Café – “noir”\ni1,Pot\ni2,Pan\n".encode("cp1252")
    )
    catalog = shop(folder)
    assert titles(catalog)[0] == "Café – “noir”"
    assert "cp1252" in said(catalog)


@pytest.mark.parametrize(
    ("values", "gaps"),
    [
        (["2019-10-01 00:00:00 UTC", "2019-10-01 00:01:00 UTC"], [60]),
        (["12/1/2010 8:26", "12/13/2010 8:26"], [12 * 86_400]),
        (["11/15/2019 9:05:58 AM", "11/15/2019 2:05:58 PM"], [5 * 3600]),
        (["13.12.2020 14:03", "14.12.2020 14:03"], [86_400]),
        (["2024-03-05 09:15:22 -0500", "2024-03-05 15:15:22 +0000"], [3600]),
        (["Thu Mar 22 14:31:30 -0700 2012", "Thu Mar 22 14:31:31 -0700 2012"], [1]),
        (["09 20, 2015", "09 21, 2015"], [86_400]),
    ],
)
def test_times_are_read_as_people_write_them(
    tmp_path: Path, values: list[str], gaps: list[int]
) -> None:
    rows = "\n".join(f'u0,i{row},"{value}"' for row, value in enumerate(values))
    catalog = shop(write(tmp_path, log=f"user_id,item_id,date\n{rows}\n"))
    assert np.diff(catalog.interactions.times).tolist() == gaps
    assert catalog.has_timestamps


def test_a_column_that_no_role_needs_never_stops_a_shop(tmp_path: Path) -> None:
    lines = [
        '{"item_id": "i0", "title": "Mug", "rank": "1 in X"}',
        '{"item_id": "i1", "title": "Pot", "rank": ["#2"]}',
        '{"item_id": "i2", "title": "Pan", "extra": {"a": [1, {"b": 2}]}}',
    ]
    catalog = shop(write(tmp_path, "\n".join(lines), file="items.jsonl"))
    assert titles(catalog) == ["Mug", "Pot", "Pan"]


def test_prices_are_read_as_shops_write_them(tmp_path: Path) -> None:
    items = 'item_id,title,price\ni0,Mug,"$85.00"\ni1,Pot,\ni2,Pan,from 14.99\ni3,Lid,405 AED\n'
    catalog = shop(write(tmp_path, items))
    assert catalog.items["price"][:] == [85.0, None, 14.99, 405.0]


def test_lines_of_python_dictionaries_are_read(tmp_path: Path) -> None:
    lines = ["{'item_id': 'i0', 'title': \"Child's puzzle\"}", "{'item_id': 'i1', 'title': None}"]
    lines.append("{'item_id': 'i2', 'title': 'Pan'}")
    catalog = shop(write(tmp_path, "\n".join(lines), file="items.json"))
    assert titles(catalog) == ["Child's puzzle", None, "Pan"]


def test_a_json_array_is_read(tmp_path: Path) -> None:
    array = '[{"item_id": "i0", "title": "Mug"},\n {"item_id": "i1"}, {"item_id": "i2"}]'
    assert titles(shop(write(tmp_path, array, file="items.json"))) == ["Mug", None, None]


def test_of_two_columns_of_one_name_the_first_counts(tmp_path: Path) -> None:
    log = "user_id,item_id,user_id,timestamp\nu0,i0,x,1\nu0,i1,y,2\nu1,i2,z,3\n"
    catalog = shop(write(tmp_path, log=log))
    assert catalog.user_ids.tolist() == ["u0", "u1"]
    assert "user_id" in said(catalog)


def test_names_with_types_are_read(tmp_path: Path) -> None:
    log = "user_id:token\titem_id:token\ttimestamp:float\nu0\ti0\t1.0\nu1\ti1\t2.0\n"
    catalog = shop(write(tmp_path, log=log))
    assert catalog.user_ids.tolist() == ["u0", "u1"]


def test_ids_that_floating_point_cannot_hold_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "interactions.csv").unlink()
    ids = pa.array([76561197960287930.0, 76561197960287931.0], pa.float64())
    table = pa.table({"user_id": ids, "item_id": ["i0", "i1"], "timestamp": [1, 2]})
    parquet.write_table(table, folder / "interactions.parquet")
    with pytest.raises(VitrineError, match="user_id"):
        shop(folder)
    write(folder, log="user_id,item_id,timestamp\n7.65612E+16,i0,1\n7.65612E+16,i1,2\n")
    (folder / "interactions.parquet").unlink()
    with pytest.raises(VitrineError, match=r"7\.65612E\+16"):
        shop(folder)


def test_users_whose_ids_became_floats_stay_apart(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\n" + "".join(f"{n}.0,i{n % 3},{n}\n" for n in range(6))
    catalog = shop(write(tmp_path, log=log))
    assert catalog.num_users == 6


def test_pictures_are_found_however_their_path_is_written(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    for name in ("a.jpg", "b c.jpg", "D.JPG"):
        (tmp_path / "pics" / name).write_bytes(b"\xff\xd8\xff")
    items = "item_id,title,image\ni0,Mug,pics\\a.jpg\ni1,Pot,pics/b%20c.jpg\ni2,Pan,pics/d.jpg\n"
    catalog = shop(write(tmp_path, items))
    found = [Path(catalog.media_path(item) or "").name for item in range(3)]
    assert found == ["a.jpg", "b c.jpg", "D.JPG"]


def test_no_tag_script_or_entity_reaches_a_model(tmp_path: Path) -> None:
    html = "<p>Warm&nbsp;coat</p><script>alert(1)</script> &amp; hat"
    catalog = shop(
        write(tmp_path, f'item_id,title,description\ni0,Coat,"{html}"\ni1,A,b\ni2,C,d\n')
    )
    assert catalog.item_text(0) == "Coat. Warm coat & hat"


def test_a_validation_part_may_be_called_valid(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "interactions.csv").unlink()
    for part, line in (("train", "u0,i0,1"), ("valid", "u0,i1,2"), ("test", "u0,i2,3")):
        (folder / f"interactions.{part}.csv").write_text(f"user_id,item_id,timestamp\n{line}\n")
    catalog = shop(folder)
    labels = catalog.interactions.split_labels
    assert labels is not None
    assert sorted(labels.to_pylist()) == ["test", "train", "validation"]


def test_embedded_pictures_do_not_stop_a_shop(tmp_path: Path) -> None:
    picture = pa.array(
        [{"bytes": b"\xff\xd8\xff", "path": None}] * 3,
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    folder = write(tmp_path)
    (folder / "items.csv").unlink()
    table = pa.table(
        {"item_id": ["i0", "i1", "i2"], "title": ["Mug", "Pot", "Pan"], "image": picture}
    )
    parquet.write_table(table, folder / "items.parquet")
    catalog = shop(folder)
    assert titles(catalog) == ["Mug", "Pot", "Pan"]
    assert "image" in said(catalog)


def test_a_setting_overrules_what_was_read_before(tmp_path: Path) -> None:
    log = "user_id,item_id,date\nu,i0,1.2.2020\nu,i1,2.2.2020\n"
    folder = write(tmp_path, log=log)
    first, again = shop(folder), shop(folder, dates="month-first")
    assert np.diff(first.interactions.times).tolist() == [86_400]
    assert np.diff(again.interactions.times).tolist() == [31 * 86_400]
    assert first.fingerprint != again.fingerprint
    assert "--catalog.dates" not in said(again)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subset", "x"),
        ("encoding", "latin-1"),
        ("delimiter", ","),
        ("quote", "none"),
        ("header", "yes"),
        ("dates", "day-first"),
        ("decimal", "comma"),
    ],
)
def test_each_setting_of_reading_gives_a_catalog_of_its_own(
    tmp_path: Path, name: str, value: str
) -> None:
    folder = write(tmp_path)
    plain, other = shop(folder), shop(folder, **{name: value})
    assert plain.fingerprint != other.fingerprint
    assert plain.content_fingerprint != other.content_fingerprint


def test_more_interactions_in_parts_leave_the_content_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    folder = write(tmp_path / "shop")
    (folder / "interactions.csv").unlink()
    (folder / "interactions").mkdir()
    loaded = []
    for part in range(2):
        table = pa.table({"user_id": [f"u{part}"], "item_id": ["i0"], "timestamp": [part]})
        parquet.write_table(table, folder / "interactions" / f"part-{part}.parquet")
        loaded.append(shop(folder))
    assert loaded[0].fingerprint != loaded[1].fingerprint
    assert loaded[0].content_fingerprint == loaded[1].content_fingerprint
