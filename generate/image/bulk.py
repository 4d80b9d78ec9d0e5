"""Pictures for everybody: one of each of a person's best items (see `generate.everybody`)."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from generate.everybody import (
    Row,
    make_for_all,
    read_rows,
    start_processes,
    wanted_items,
    wanted_rows,
)
from generate.image.config import ImageBulkConfig
from generate.image.painter import Painter, open_painter
from generate.pseudonyms import opaque_id

KIND = "pictures"
SCHEMA = pa.schema(
    {
        "person": pa.string(),
        "item_id": pa.string(),
        "place": pa.int32(),
        "mode": pa.string(),
        "picture": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "seed": pa.int64(),
        "refused": pa.string(),
    }
)
"""person: `generate.pseudonyms.opaque_id` of who it is for; place: of the item in the person's list, the
best first; picture: a signed PNG, as Hugging Face's datasets keep pictures, null where what was drawn was
`refused`."""


def draw_for_all(config: ImageBulkConfig, output: Path) -> Path:
    """Writes a `pictures` artifact: `pictures.parquet`, a row for each person and item."""
    state = start_processes()
    painter = open_painter(config.generator, recommender=config.recommender)
    painter.pipeline.to(state.device)
    items = wanted_items(config.items, painter.catalog)
    return make_for_all(
        KIND,
        SCHEMA,
        config,
        painter.catalog,
        lambda users: draw_block(painter, users, items, config),
        count_refused,
        output,
    )


def draw_block(
    painter: Painter,
    users: NDArray[np.int64],
    items: tuple[int, list[int]],
    config: ImageBulkConfig,
) -> list[Row]:
    """Rows of these people. What is drawn depends on the seed, the person and the item alone."""
    catalog = painter.catalog
    wanted, states, _ = wanted_rows(catalog, painter.ranker, users, items, config.draw.seed)
    drawn = painter.draw_rows(
        states[[one.state for one in wanted]],
        [one.item for one in wanted],
        [one.seed for one in wanted],
        config.draw,
    )
    ids = catalog.items.data.column("item_id")
    rows = []
    for one, found in zip(wanted, drawn, strict=True):
        user, item = str(catalog.user_ids[one.user]), ids[one.item].as_py()
        person, content = opaque_id(user), None
        if found.picture is not None:
            content = painter.finish(found.picture, (user, item), config.draw)
        name = f"{person}-{one.place}-{config.draw.mode}.png"
        rows.append(
            {
                "person": person,
                "item_id": item,
                "place": one.place,
                "mode": config.draw.mode,
                "picture": content and {"bytes": content, "path": name},
                "seed": found.seed,
                "refused": found.refused,
            }
        )
    return rows


def count_refused(rows: pa.Table) -> Mapping[str, int]:
    return {"refused": rows.column("picture").null_count}


def read_pictures(folder: str | Path) -> pa.Table:
    """The rows of a `pictures` artifact."""
    return read_rows(folder, KIND)
