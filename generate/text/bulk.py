"""Words for everybody: a text about each of a person's best items (see `generate.everybody`)."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.errors import VitrineError
from generate.everybody import (
    Row,
    make_for_all,
    read_rows,
    start_processes,
    wanted_items,
    wanted_rows,
)
from generate.pseudonyms import opaque_id
from generate.text.config import BulkConfig
from generate.text.prompts import Past
from generate.text.writer import Writer, open_writer

AT_ONCE = 256
"""Texts that are asked for together."""
KIND = "texts"
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "item_id": pa.string(),
        "rank": pa.int32(),
        "task": pa.string(),
        "text": pa.string(),
        "seed": pa.int64(),
        "own": pa.bool_(),
    }
)
"""user: `generate.pseudonyms.opaque_id` of who it is for; rank: of the item in the person's list, the
best first; own: the words are the catalog's."""


def write_for_all(config: BulkConfig, output: Path) -> Path:
    """Writes a `texts` artifact: `texts.parquet`, a row for each person and item."""
    state = start_processes()
    writer = open_writer(
        config.generator, recommender=config.recommender, engine=config.write.engine
    )
    writer.generator.to(state.device)
    items = wanted_items(config.items, writer.catalog)
    if config.task not in writer.generator.tasks:
        known = ", ".join(writer.generator.tasks)
        raise VitrineError(
            f"{config.generator} has not learned the task {config.task!r}; it writes {known}."
        )
    return make_for_all(
        KIND,
        SCHEMA,
        config,
        writer.catalog,
        lambda users: write_block(writer, users, items, config),
        count_own,
        output,
    )


def write_block(
    writer: Writer, users: NDArray[np.int64], items: tuple[int, list[int]], config: BulkConfig
) -> list[Row]:
    """Rows of these people. What is drawn depends on the seed, the person and the item alone."""
    catalog = writer.catalog
    wanted, states, histories = wanted_rows(catalog, writer.ranker, users, items, config.write.seed)
    texts: list[tuple[str, bool]] = []
    for start in range(0, len(wanted), AT_ONCE):
        asked = wanted[start : start + AT_ONCE]
        texts += writer.write_rows(
            states[[one.state for one in asked]],
            [Past(one.user, len(histories[one.state])) for one in asked],
            [one.item for one in asked],
            config.task,
            [one.seed for one in asked],
            config.write,
        )
    ids = catalog.items.data.column("item_id")
    return [
        {
            "user": opaque_id(str(catalog.user_ids[one.user])),
            "item_id": ids[one.item].as_py(),
            "rank": one.place,
            "task": config.task,
            "text": text,
            "seed": one.seed,
            "own": own,
        }
        for one, (text, own) in zip(wanted, texts, strict=True)
    ]


def count_own(rows: pa.Table) -> Mapping[str, int]:
    return {"own": pc.sum(rows.column("own")).as_py() or 0}


def read_texts(folder: str | Path) -> pa.Table:
    """The rows of a `texts` artifact."""
    return read_rows(folder, KIND)
