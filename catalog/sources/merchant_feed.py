"""Reads product feeds for Google Merchant Center: XML (RSS 2.0 or Atom) and tab-separated text."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from xml.parsers import expat

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, one_line_message
from catalog.notes import Notes
from catalog.reading import read_table, unite_tables
from catalog.reading.recognize import suffix_of
from catalog.reading.streams import byte_blocks, recognize_compression
from catalog.sources.base import RawTables
from catalog.sources.finding import files_in, missing, refuse_subset
from catalog.sources.purchases import (
    Key,
    columns_of,
    existing_path,
    interaction_parts,
    read_purchases,
)
from catalog.sources.shaping import (
    first_rows,
    renamed,
    split_text,
    text_of,
    with_column,
    with_empty,
)

LISTS = ("additional_image_link", "product_type")
"""Attributes that a product may have several times."""
PRODUCTS = {"item", "entry"}
"""Elements of RSS and of Atom that hold a product."""
BATCH = 8192
"""Products that are collected before they become a table."""
DEEPEST = 64
"""Nesting of the deepest element that is read."""
LONGEST = 1 << 24
"""Letters of the longest attribute."""
ROLES = {
    "title": "title",
    "text": ["description"],
    "category": "category",
    "price": "price",
    "image": "image_link",
}


def merchant_feed_tables(config: CatalogConfig) -> RawTables:
    """A Google Merchant feed of products, as XML (RSS 2.0 or Atom with `g:id`, `g:title`, `g:image_link`
    …) or tab-separated (`id`, `title`, `description`, `image_link`, `price` …), with a table
    `interactions.*` beside it. Variants that share an `item_group_id` are one product; ids of
    interactions may be either.
    """
    refuse_subset(config, "merchant-feed")
    folder, named = existing_path(config, "a product feed")
    feeds = named or [path for path in files_in(folder) if _is_feed(path, config)]
    if not feeds:
        raise missing(folder, "feed (.xml, or a table with id, title and link)", "merchant-feed")
    notes = Notes()
    paths = interaction_parts(folder, [], "merchant-feed", notes)["interactions"]
    offers = cache(partial(_offers, feeds, config, notes))
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[*feeds, *paths],
        item_files=feeds,
        read_items=lambda: _products(offers(), feeds[0].name, notes),
        read_interactions=lambda: read_purchases(paths, _keys(offers()), config, notes),
        roles=ROLES,
        notes=notes,
    )


def _is_feed(path: Path, config: CatalogConfig) -> bool:
    names = {_plain(name) for name in columns_of(path, config)}
    return suffix_of(path) == ".xml" or (
        {"id", "title"} <= names and bool(names & {"link", "image_link"})
    )


def _plain(name: str) -> str:
    """An attribute's name in one form: "g:Image Link" → image_link."""
    return name.strip().lower().removeprefix("g:").replace(" ", "_")


def _offers(paths: list[Path], config: CatalogConfig, notes: Notes) -> pa.Table:
    """All products of the feeds, with a column `item_id`: the group, or the own id where there is none."""
    tables = []
    for path in paths:
        if suffix_of(path) == ".xml":
            table = pa.Table.from_batches(_unite(list(_xml_tables(path))))
        else:
            table = read_table(path, config, notes)
            table = renamed(table, {name: _plain(name) for name in table.column_names})
            for name in LISTS:
                if name in table.column_names:
                    separator = "," if name == "additional_image_link" else "\n"
                    table = with_column(table, name, split_text(table[name], separator))
        tables.append(table)
    names = [path.name for path in paths]
    table = tables[0] if len(tables) == 1 else unite_tables(tables, names, notes)
    table = with_empty(table, ["title", "description", "price", "image_link", "item_group_id"])
    if "id" not in table.column_names:
        raise VitrineError(f"{paths[0]} names no product's id; a feed needs id, title and link.")
    groups = text_of(table["item_group_id"])
    return with_column(table, "item_id", pc.coalesce(groups, text_of(table["id"])))


def _unite(tables: list[pa.Table]) -> list[pa.RecordBatch]:
    united = unite_tables(tables, [""] * len(tables), Notes())
    return united.to_batches()


def _products(offers: pa.Table, where: str, notes: Notes) -> pa.Table:
    grouped = len(offers) - offers["item_group_id"].null_count
    if grouped:
        notes.add(
            where,
            f"{grouped} products have an item_group_id; each group is one item, as its first variant is",
            count=grouped,
        )
    # A group's further variants are no repeated rows.
    table = first_rows(offers, "item_id", where, Notes() if grouped else notes)
    names = [
        name for name in ("product_type", "google_product_category") if name in table.column_names
    ]
    if "category" not in table.column_names:
        found = [
            pc.list_element(table[name], 0) if name in LISTS else table[name]
            for name in names
        ]  # fmt: skip
        category = pc.coalesce(*found) if found else pa.nulls(len(table), pa.string())
        table = with_column(table, "category", category)
    return table


def _keys(offers: pa.Table) -> list[Key]:
    products = offers["item_id"]
    keys = [Key("item_id", products, products), Key("id", offers["id"], products)]
    others = [name for name in ("mpn", "gtin") if name in offers.column_names]
    return keys + [Key(name, offers[name], products) for name in others]


# XML


@dataclass
class _Feed:
    """Collects a feed's products from the events of an XML parser."""

    path: Path
    rows: list[dict[str, list[str]]] = field(default_factory=list)
    depth: int = 0
    base: int = 0
    """Depth of the element that holds the current product; 0 outside of one."""
    name: str = ""
    text: list[str] = field(default_factory=list)
    length: int = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise VitrineError(
                f"{self.path} nests elements {self.depth} deep; a feed has five levels."
            )
        local = name.rpartition("\n")[2]
        if not self.base and local in PRODUCTS:
            self.base = self.depth
            self.rows.append({})
        elif self.base and self.depth == self.base + 1:
            self.name, self.text, self.length = _plain(local), [], 0
            if local == "link" and attributes.get("href"):  # Atom
                self.text = [attributes["href"]]
        elif self.base and self.text:
            self.text.append(":")

    def data(self, text: str) -> None:
        if self.base and self.depth > self.base:
            self.length += len(text)
            if self.length > LONGEST:
                raise VitrineError(
                    f"{self.path}: the attribute {self.name} has more than {LONGEST:,} letters; shorten it."
                )
            self.text.append(text)

    def end(self, name: str) -> None:
        if self.base and self.depth == self.base + 1:
            value = "".join(self.text).strip().strip(":")
            if value:
                self.rows[-1].setdefault(self.name, []).append(value)
        elif self.depth == self.base:
            self.base = 0
        self.depth -= 1

    def table(self) -> pa.Table:
        """The products that are complete, which are forgotten."""
        done = self.rows[:-1] if self.base else self.rows
        self.rows = self.rows[-1:] if self.base else []
        names = dict.fromkeys(name for row in done for name in row)
        columns = {}
        for name in names:
            values = [row.get(name) for row in done]
            if name in LISTS:
                columns[name] = pa.array(values, pa.list_(pa.string()))
            else:
                texts = [", ".join(value) if value else None for value in values]
                columns[name] = pa.array(texts, pa.string())
        return pa.table(columns)


def _xml_tables(path: Path) -> Iterator[pa.Table]:
    """The products of an XML file, in tables. No entity is expanded but those of XML itself.

    Raises VitrineError for a document type, which could define entities, and for broken XML.
    """
    feed = _Feed(path)
    parser = expat.ParserCreate(namespace_separator="\n")
    parser.buffer_text = True
    parser.StartElementHandler = feed.start
    parser.EndElementHandler = feed.end
    parser.CharacterDataHandler = feed.data
    parser.StartDoctypeDeclHandler = _refusal(path)
    found = False
    try:
        for block in byte_blocks(path, recognize_compression(path), 1 << 20):
            parser.Parse(block, False)
            if len(feed.rows) > BATCH:
                found = True
                yield feed.table()
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise VitrineError(
            f"{path} is no XML that can be read: {one_line_message(error)}; export the feed again."
        ) from error
    if feed.rows:
        yield feed.table()
    elif not found:
        raise VitrineError(
            f"{path} holds no product; a feed has elements <item> (RSS) or <entry> (Atom)."
        )


def _refusal(path: Path) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise VitrineError(
            f"{path} declares a document type (DOCTYPE), which a feed has no use for and which could "
            "name other files; remove that line."
        )

    return refuse
