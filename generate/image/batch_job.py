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
from generate.image.config import ImageBatchConfig
from generate.image.sampler import ImageSampler, load_image_sampler
from generate.pseudonyms import opaque_id

KIND = "images"
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "item_id": pa.string(),
        "rank": pa.int32(),
        "mode": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "seed": pa.int64(),
        "refused": pa.string(),
    }
)
"""user: `generate.pseudonyms.opaque_id` of who it is for; rank: of the item in the person's list, the
best first; image: a signed PNG, as Hugging Face's datasets keep pictures, null where what was drawn was
`refused`."""


def run_image_batch_job(config: ImageBatchConfig, output: Path) -> Path:
    """Writes an `images` artifact: `images.parquet`, a row for each person and item."""
    state = start_processes()
    sampler = load_image_sampler(config.generator, recommender=config.recommender)
    sampler.pipeline.to(state.device)
    items = wanted_items(config.items, sampler.catalog)
    return make_for_all(
        KIND,
        SCHEMA,
        config,
        sampler.catalog,
        lambda users: sample_block(sampler, users, items, config),
        count_rejected,
        output,
    )


def sample_block(
    sampler: ImageSampler,
    users: NDArray[np.int64],
    items: tuple[int, list[int]],
    config: ImageBatchConfig,
) -> list[Row]:
    """Rows of these people. What is drawn depends on the seed, the person and the item alone."""
    catalog = sampler.catalog
    wanted, states, _ = wanted_rows(catalog, sampler.ranker, users, items, config.sampling.seed)
    drawn = sampler.sample_rows(
        states[[one.state for one in wanted]],
        [one.item for one in wanted],
        [one.seed for one in wanted],
        config.sampling,
    )
    ids = catalog.items.data.column("item_id")
    rows = []
    for one, found in zip(wanted, drawn, strict=True):
        user, item = str(catalog.user_ids[one.user]), ids[one.item].as_py()
        person, content = opaque_id(user), None
        if found.picture is not None:
            content = sampler.finish(found.picture, (user, item), config.sampling)
        name = f"{person}-{one.place}-{config.sampling.mode}.png"
        rows.append(
            {
                "user": person,
                "item_id": item,
                "rank": one.place,
                "mode": config.sampling.mode,
                "image": content and {"bytes": content, "path": name},
                "seed": found.seed,
                "refused": found.refused,
            }
        )
    return rows


def count_rejected(rows: pa.Table) -> Mapping[str, int]:
    return {"refused": rows.column("image").null_count}


def read_images(folder: str | Path) -> pa.Table:
    """The rows of an `images` artifact."""
    return read_rows(folder, KIND)
