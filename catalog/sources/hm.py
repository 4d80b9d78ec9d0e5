"""Reads H&M's Kaggle data: articles, transactions and pictures."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.notes import Notes
from catalog.reading import batch_reader, read_table
from catalog.sources.base import RawTables
from catalog.sources.batches import shape_batches
from catalog.sources.finding import need, refuse_subset
from catalog.sources.folder import existing_folder
from catalog.sources.shaping import (
    image_paths,
    need_columns,
    with_column,
    with_empty,
)

DIGITS = 10
"""Digits of an article's id, which begins with 0."""
TEXT = ["product_type_name", "colour_group_name", "detail_desc"]


def hm_tables(config: CatalogConfig) -> RawTables:
    """H&M's `articles.csv` (`article_id`, `prod_name`, `product_type_name`, `detail_desc` …),
    `transactions_train.csv` (`t_dat`, `customer_id`, `article_id`, `price`) and, if there,
    `images/<first three digits>/<article_id>.jpg`. Ids keep their leading zero. Times are days; rows that
    repeat another are quantities. `customers.csv` is not read, and prices of transactions are scaled.
    """
    refuse_subset(config, "hm")
    folder = existing_folder(config.path)
    articles = need(folder, "articles.csv", "articles.parquet", source="hm")
    names = ("transactions_train.csv", "transactions_train.parquet", "transactions.csv")
    transactions = need(folder, *names, source="hm")
    notes = Notes()
    shape = partial(_transactions, transactions)
    return RawTables(
        name=folder.name,
        folder=folder,
        files=[articles, transactions],
        item_files=[articles],
        read_items=partial(_articles, articles, folder, config, notes),
        read_interactions=lambda: shape(read_table(transactions, config, notes), notes),
        roles={
            "item_id": "article_id",
            "user_id": "customer_id",
            "time": "t_dat",
            "title": "prod_name",
            "text": TEXT,
            "category": "product_type_name",
            "image": "image",
            "price": None,
        },
        notes=notes,
        interaction_batches=shape_batches(batch_reader(transactions, config, notes), shape, notes),
    )


def _articles(path: Path, folder: Path, config: CatalogConfig, notes: Notes) -> pa.Table:
    table = read_table(path, config, notes)
    need_columns(table, ["article_id", "prod_name"], path, "hm")
    table = _with_ids(with_empty(table, TEXT), path, notes)
    return with_column(table, "image", image_paths(table["article_id"], folder, ["images"]))


def _transactions(path: Path, table: pa.Table, notes: Notes) -> pa.Table:
    need_columns(table, ["t_dat", "customer_id", "article_id"], path, "hm")
    notes.add(
        path.name,
        "times are days: purchases of one day keep the file's order, and rows that repeat another count as "
        "quantities",
        remedy="set --catalog.ties shuffle for a fixed random order within a day",
    )
    return _with_ids(table, path, notes)


def _with_ids(table: pa.Table, path: Path, notes: Notes) -> pa.Table:
    """The table with ids of ten digits, also where they were saved as numbers."""
    ids = table["article_id"].cast(pa.string())
    short = pc.less(pc.utf8_length(ids), DIGITS)
    if count := pc.sum(short).as_py():
        notes.add(
            f"{path.name}: article_id",
            f"{count} ids lost their leading zero and get it back",
            count=count,
            examples=ids.filter(short)[:3].to_pylist(),
        )
        ids = pc.utf8_lpad(ids, DIGITS, "0")
    return with_column(table, "article_id", ids)
