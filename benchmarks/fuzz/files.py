"""Parsers of files: delimited text, JSON, compression, encodings, parquet, YAML."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard
from hypothesis import strategies as st
from pyarrow import parquet

from benchmarks.fuzz.edits import edited
from benchmarks.fuzz.kit import Parser
from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import read_batches, read_table
from catalog.sources.folder import read_settings
from launch.settings import load_settings

CSV = [
    b'item_id,title,price\n1,"Mug, red",9.50\n2,Pot,"1,5"\n3,"a ""b""",\n',
    b"item_id;title;price\r\n1;Mug;9,50\r\n2;Pot;1\r\n",
    b"1\tMug\t9\n2\tPot\t3\n3\t\t4\n",
    b"item_id|title\n1|x\n2|y\n",
    b"1::Heat (1995)::Crime\n2::Toys::Comedy\n",
    b'sep=;\n"id";"name"\n"1";"line\nbreak"\n"2";"x"\n',
    b"id,a\r1,2\r3,4\r",
]
JSON = [
    b'{"item_id": "1", "title": "Mug", "price": 9.5}\n{"item_id": "2", "tags": ["a", "b"]}\n',
    b'[{"id": 1, "n": {"a": [1, 2]}}, {"id": 2, "n": null}]',
    b"{'asin': '1', 'title': 'A \"b\"', 'x': [('a', 1)]}\n{'asin': '2', 'title': None}\n",
    b'{"id": 12345678901234567890, "d": "2020-01-01"}\n{"id": 1.5, "d": 3}\n',
    b'{"a": "\\ud83d\\ude00 \\ud800"}\n',
]
TEXTS = [*CSV, *JSON, "item_id,title\n1,Käse\n2,Ærø\n3,日本\n".encode()]
YAML = [
    b"roles:\n  item_id: sku\n  text: [a, b]\n  image: null\n",
    b"roles: {title: 'x', price: p}\nimported:\n  counts: {a: 1e3}\n",
    b"a: &x [1, 2]\nb: *x\nroles: !!map {}\n",
    b"since: 2020-01-31\nmin_rating: 3.5\nroles: {title: x}\nfetch: {ports: [80, 443]}\n",
]
SETTINGS = [
    b"since: 2020-01-31\nmin_rating: 3.5\nroles: {title: x}\nfetch: {ports: [80, 443]}\n",
    b"ties: shuffle\nencoding: utf-8\nsample_users: 0.1\nfetch_images: true\nseed: 3\n",
]


def _table(given: tuple[str, bytes], folder: Path, **rules: Any) -> object:
    name, content = given
    path = folder / name
    path.write_bytes(content)
    notes = Notes()
    table = read_table(path, CatalogConfig(**rules), notes)
    again = list(read_batches(path, CatalogConfig(**rules), Notes()))
    assert sum(batch.num_rows for batch in again) == table.num_rows
    return table.to_pydict(), notes.listed


def _delimited(given: tuple[str, bytes], folder: Path) -> object:
    return _table(given, folder)


def _by_rules(given: tuple[str, bytes, dict[str, str]], folder: Path) -> object:
    name, content, rules = given
    return _table((name, content), folder, **rules)


def _packed(given: tuple[str, bytes, bytes], folder: Path) -> object:
    name, packed, _ = given
    return _table((name, packed), folder)


def _pack(form: str, content: bytes) -> bytes:
    match form:
        case "gz":
            return gzip.compress(content, mtime=0)
        case "zst":
            return zstandard.compress(content)
        case "bz2":
            return bz2.compress(content)
        case "xz":
            return lzma.compress(content)
        case _:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr(zipfile.ZipInfo("../items.csv"), content)
            return buffer.getvalue()


def _parquet_seeds() -> list[bytes]:
    tables = [
        pa.table({"item_id": ["a", "b"], "price": [1.5, None], "tags": [["x"], []]}),
        pa.table(
            {
                "id": pa.array([1, 2]),
                "s": [{"a": 1}, None],
                "t": pa.array([0, 9], pa.timestamp("us")),
            }
        ),
        pa.table({"item_id": pa.array(["a", "a", "b"]).dictionary_encode()}),
    ]
    found = []
    for table in tables:
        for compression in ("snappy", "zstd", "none"):
            buffer = io.BytesIO()
            parquet.write_table(table, buffer, compression=compression)
            found.append(buffer.getvalue())
    return found


def _yaml(given: bytes, folder: Path) -> object:
    path = folder / "catalog.yaml"
    path.write_bytes(given)
    return read_settings(path)


def _settings(given: bytes, folder: Path) -> object:
    from catalog.importing.config import ImportConfig

    path = folder / "settings.yaml"
    path.write_bytes(given)
    return load_settings(ImportConfig, path, [])


def _options(given: list[str], folder: Path) -> object:
    from catalog.importing.config import ImportConfig

    return load_settings(ImportConfig, None, given)


def _named(names: list[str], contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(names), contents)


RULES = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(
            ["utf-8", "utf-16", "cp1252", "latin-1", "utf-7", "rot13", "x"]
        ),
        "delimiter": st.sampled_from([",", "tab", "", "ab", "\n", '"', "pipe"]),
        "quote": st.sampled_from(["double", "none"]),
        "header": st.sampled_from(["yes", "no"]),
    },
)
WIDE = [
    text.decode().encode(encoding)
    for text in TEXTS[:3] + TEXTS[-1:]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig")
] + ["item_id,title\n1,Käse — ½\n2,Ærø\n".encode("cp1252"), "id,t\n1,дом\n".encode("cp1251")]
KEYS = st.sampled_from(
    ["--since", "--min_rating", "--roles", "--fetch.ports", "--fetch", "--x.y", "--seed"]
)
WORDS = st.one_of(
    st.text(max_size=12), st.sampled_from(["{a: [", "1e999", "null", "[80, x]", "!!python/x y"])
)
PARSERS = {
    "delimited text": Parser(
        _named(["items.csv", "items.tsv", "items.txt", "a.dat"], edited(CSV)), _delimited
    ),
    "delimited text by rules": Parser(
        st.tuples(st.just("items.csv"), edited(CSV + WIDE), RULES), _by_rules, again=3
    ),
    "json": Parser(_named(["items.jsonl", "items.json", "items.csv"], edited(JSON)), _delimited),
    "compression": Parser(
        st.tuples(
            st.sampled_from(["items.csv", "items.csv.gz", "items.jsonl.zst", "x.zip"]),
            edited(
                [_pack(form, text) for form in ("gz", "zst", "bz2", "xz", "zip") for text in TEXTS]
            ),
            st.just(b""),
        ),
        _packed,
        again=2,
    ),
    "encodings": Parser(_named(["items.csv"], edited(WIDE)), _delimited, again=2),
    "random bytes": Parser(
        _named(["items.csv", "a.jsonl", "a.parquet"], st.binary(max_size=300)), _delimited
    ),
    "parquet": Parser(_named(["items.parquet"], edited(_parquet_seeds())), _delimited, again=2),
    "catalog.yaml": Parser(edited(YAML), _yaml),
    "settings": Parser(edited(SETTINGS), _settings),
    "options": Parser(st.lists(st.one_of(KEYS, WORDS), max_size=6), _options),
}
