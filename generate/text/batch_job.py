"""Batch generation of texts: one for each of every user's best items (see `generate.batch_job`)."""

# pyright: reportAttributeAccessIssue=false
# pyarrow creates the functions of pyarrow.compute at import; type checkers do not see them.

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.errors import VitrineError
from generate.batch_job import (
    BatchJob,
    ItemSelection,
    Row,
    build_requests,
    parse_items,
    read_rows,
    run_batch_job,
)
from generate.pseudonyms import pseudonymize
from generate.text.config import TextBatchConfig
from generate.text.writer import BatchWriter, GeneratedText, load_writer
from pretrain.devices import Compute, choose_compute

BATCH_SIZE = 256
"""Requests that are passed to the writer at once."""
KIND = "texts"
SCHEMA = pa.schema(
    {
        "user": pa.string(),
        "item_id": pa.string(),
        "rank": pa.int32(),
        "task": pa.string(),
        "text": pa.string(),
        "seed": pa.int64(),
        "from_catalog": pa.bool_(),
    }
)
"""user: `generate.pseudonyms.pseudonymize` of the user; rank: position of the item in the user's ranking, 0
for the best; from_catalog: whether the text is the catalog's own, the fallback of `verify_claims`."""


def write_texts(config: TextBatchConfig, output: Path, compute: Compute | None = None) -> Path:
    """Writes a `texts` artifact: `texts.parquet`, a row for each user and item.

    `compute`: device and precision; None: float32 on the GPU where there is one.
    """
    compute = compute or choose_compute()
    writer = load_writer(
        config.generator,
        recommender=config.recommender,
        config=config.write,
        compute=compute,
    )
    items = parse_items(config.items, writer.catalog)
    if config.task not in writer.generator.tasks:
        known = ", ".join(writer.generator.tasks)
        raise VitrineError(
            f"{config.generator} was not trained on the task {config.task!r}; it writes {known}."
        )

    def write_rows(users: NDArray[np.int64]) -> list[Row]:
        return write_part(writer, users, items, config)

    job = BatchJob(KIND, SCHEMA, write_rows, count_catalog_texts)
    return run_batch_job(job, config, writer.catalog, output, compute)


def write_part(
    writer: BatchWriter, users: NDArray[np.int64], items: ItemSelection, config: TextBatchConfig
) -> list[Row]:
    """Output rows of these users. A text depends on the seed, the user and the item alone."""
    catalog = writer.catalog
    requests = build_requests(catalog, writer.ranker, users, items, config.write.seed)
    texts: list[GeneratedText] = []
    for start in range(0, len(requests), BATCH_SIZE):
        batch = requests[start : start + BATCH_SIZE]
        texts += writer.write_batch(batch, config.task, config.write)
    return [
        {
            "user": pseudonymize(text.user),
            "item_id": text.item,
            "rank": request.rank,
            "task": text.task,
            "text": text.text,
            "seed": text.seed,
            "from_catalog": text.from_catalog,
        }
        for request, text in zip(requests, texts, strict=True)
    ]


def count_catalog_texts(rows: pa.Table) -> Mapping[str, int]:
    return {"from_catalog": pc.sum(rows.column("from_catalog")).as_py() or 0}


def read_texts(folder: str | Path) -> pa.Table:
    """Reads the rows of a `texts` artifact."""
    return read_rows(folder, KIND)
