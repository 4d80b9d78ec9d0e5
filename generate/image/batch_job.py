"""Batch generation of images: one for each of every user's best items (see `generate.batch_job`)."""

# pyright: reportAttributeAccessIssue=false
# pyarrow creates the functions of pyarrow.compute at import; type checkers do not see them.

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from generate.batch_job import (
    BatchJob,
    ItemSelection,
    Row,
    build_requests,
    parse_items,
    read_rows,
    run_batch_job,
)
from generate.image.config import ImageBatchConfig
from generate.image.foreground import REFUSED
from generate.image.loading import load_image_sampler
from generate.image.sampler import ImageSampler
from generate.pseudonyms import pseudonymize
from generate.requests import stack_states
from pretrain.devices import Compute, choose_compute

KIND = "images"
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "item_id": pa.string(),
        "rank": pa.int32(),
        "mode": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "seed": pa.int64(),
        "rejected": pa.string(),
    }
)
"""user: `generate.pseudonyms.pseudonymize` of the user; rank: position of the item in the user's ranking, 0
for the best; image: a signed PNG, as Hugging Face's datasets store images, null where it was
`rejected`."""


def run_image_batch_job(
    config: ImageBatchConfig, output: Path, compute: Compute | None = None
) -> Path:
    """Writes an `images` artifact: `images.parquet`, a row for each user and item.

    `compute`: device and precision; None: float32 on the GPU where there is one.
    """
    compute = compute or choose_compute()
    sampler = load_image_sampler(config.generator, recommender=config.recommender, compute=compute)
    items = parse_items(config.items, sampler.catalog)

    def sample_rows(users: NDArray[np.int64]) -> list[Row]:
        return sample_part(sampler, users, items, config)

    job = BatchJob(KIND, SCHEMA, sample_rows, count_rejected)
    return run_batch_job(job, config, sampler.catalog, output, compute)


def sample_part(
    sampler: ImageSampler, users: NDArray[np.int64], items: ItemSelection, config: ImageBatchConfig
) -> list[Row]:
    """Output rows of these users. An image depends on the seed, the user and the item alone."""
    catalog = sampler.catalog
    requests = build_requests(catalog, sampler.ranker, users, items, config.sampling.seed)
    sampled = sampler.sample_rows(
        stack_states(requests),
        [request.item for request in requests],
        [request.seed for request in requests],
        config.sampling,
    )
    ids = catalog.items.data.column("item_id")
    rows: list[Row] = []
    for request, found in zip(requests, sampled, strict=True):
        user, item = str(catalog.user_ids[request.prefix.user]), ids[request.item].as_py()
        pseudonym, content = pseudonymize(user), None
        if found.image is not None:
            content = sampler.to_signed_png(found.image, (user, item), config.sampling)
        name = f"{pseudonym}-{request.rank}-{config.sampling.mode}.png"
        rows.append(
            {
                "user": pseudonym,
                "item_id": item,
                "rank": request.rank,
                "mode": config.sampling.mode,
                "image": content and {"bytes": content, "path": name},
                "seed": found.seed,
                "rejected": found.rejected,
            }
        )
    return rows


def count_rejected(rows: pa.Table) -> Mapping[str, int]:
    """`rejected`: rows without an image; `refused_masks`: of these, for lack of a mask in creative mode."""
    refused = pc.starts_with(rows.column("rejected"), pattern=REFUSED)
    return {
        "rejected": rows.column("image").null_count,
        "refused_masks": pc.sum(refused).as_py() or 0,
    }


def read_images(folder: str | Path) -> pa.Table:
    """Reads the rows of an `images` artifact."""
    return read_rows(folder, KIND)
