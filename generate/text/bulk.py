"""Words for everybody: a text about each of a person's best items, person after person, to parquet.

Goes on where it was when it is started again. Under torchrun the blocks of people are shared out over
the processes, each on its own device.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from catalog.artifacts import open_artifact, request_hash, write_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.progress import track
from catalog.staging import flush_file
from generate.conditioning import derived_seed
from generate.text.config import BulkConfig
from generate.text.prompts import Past
from generate.text.writer import Writer, open_writer
from pretrain.work import claim_work

BLOCK = 64
"""People whose texts are written to disk together."""
AT_ONCE = 256
"""Texts that are asked for together."""
TEXTS_FILE = "texts.parquet"
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "place": pa.int32(),
        "task": pa.string(),
        "text": pa.string(),
        "seed": pa.int64(),
        "own": pa.bool_(),
    }
)
"""place: of the item in the person's list, the best first; own: the words are the catalog's."""


def write_for_all(config: BulkConfig, output: Path) -> Path:
    """Writes a `texts` artifact: `texts.parquet`, a row for each person and item."""
    from accelerate import PartialState

    # Nobody gives up on others that have more left to do.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    writer = open_writer(
        config.generator, recommender=config.recommender, engine=config.write.engine
    )
    writer.generator.to(state.device)
    best, listed = wanted_items(config.items, writer.catalog)
    users = wanted_users(config.users, writer.catalog)
    if config.task not in writer.generator.tasks:
        known = ", ".join(writer.generator.tasks)
        raise VitrineError(
            f"{config.generator} has not learned the task {config.task!r}; it writes {known}."
        )
    parents = {"generator": Path(config.generator)}
    if config.recommender:
        parents["recommender"] = Path(config.recommender)
    told = asdict(config) | {
        "users": writer.catalog.user_ids[users].tolist() if config.users else ""
    }
    request = request_hash("texts", told, parents, writer.catalog.fingerprint)
    work = output.with_name(f"{output.name}.work")
    if state.is_main_process:
        claim_work(work, request)
    state.wait_for_everyone()
    blocks = range(0, len(users), BLOCK)
    mine = blocks[state.process_index :: state.num_processes]
    left = [start for start in mine if not part(work, start).exists()]
    for start in track(left, f"Writing for {len(users):,} people", shown=state.is_main_process):
        rows = write_block(writer, users[start : start + BLOCK], best, listed, config)
        partial = part(work, start).with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)
        flush_file(partial)
        partial.replace(part(work, start))
    state.wait_for_everyone()
    if state.is_main_process:
        counted = [pq.read_table(part(work, start), columns=["own"]) for start in blocks]
        metrics = {
            "people": len(users),
            "texts": sum(len(rows) for rows in counted),
            "own": sum(pc.sum(rows.column("own")).as_py() or 0 for rows in counted),
        }
        with (
            write_artifact(
                output,
                kind="texts",
                config=asdict(config),
                parents=parents,
                catalog=writer.catalog.fingerprint,
                metrics=metrics,
                request=request,
            ) as staging,
            pq.ParquetWriter(staging.path / TEXTS_FILE, SCHEMA) as file,
        ):
            for start in blocks:
                file.write_table(pq.read_table(part(work, start)))
        shutil.rmtree(work)  # only now: killed before, the next start finishes it
    state.wait_for_everyone()
    return output


def write_block(
    writer: Writer,
    users: NDArray[np.int64],
    best: int,
    listed: Sequence[int],
    config: BulkConfig,
) -> list[dict[str, Any]]:
    """Rows of these people. What is drawn depends on the seed, the person and the item alone."""
    catalog = writer.catalog
    histories = [np.asarray(catalog.interactions.history(user)) for user in users]
    asked: list[tuple[int, int, int]] = []
    for row, history in enumerate(histories):
        items = [item for item, _ in writer.shop.rank(history, best)] if best else listed
        asked += [(row, item, place) for place, item in enumerate(items)]
    states = writer.shop.user_states(histories)
    seeds = [derived_seed(config.write.seed, int(users[row]), item) for row, item, _ in asked]
    texts: list[tuple[str, bool]] = []
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        texts += writer.write_rows(
            states[[row for row, _, _ in part]],
            [Past(int(users[row]), len(histories[row])) for row, _, _ in part],
            [item for _, item, _ in part],
            config.task,
            seeds[start : start + AT_ONCE],
            config.write,
        )
    ids = catalog.items.data.column("item_id")
    return [
        {
            "user_id": str(catalog.user_ids[users[row]]),
            "item_id": ids[item].as_py(),
            "place": place,
            "task": config.task,
            "text": text,
            "seed": seed,
            "own": own,
        }
        for (row, item, place), seed, (text, own) in zip(asked, seeds, texts, strict=True)
    ]


def wanted_items(told: str, catalog: Catalog) -> tuple[int, list[int]]:
    """`top:3` → (3, []); `ID,ID` → (0, rows of those items)."""
    kind, colon, number = told.partition(":")
    if colon and kind == "top":
        if not number.isdecimal() or int(number) < 1:
            raise VitrineError(f"items is {told!r}; top takes a number from 1 on, such as top:3.")
        return int(number), []
    ids = [part.strip() for part in told.split(",") if part.strip()]
    if not ids:
        raise VitrineError("items is empty; give top:3 for each person's best, or ids of items.")
    return 0, [catalog.item_index(one) for one in ids]


def wanted_users(told: str, catalog: Catalog) -> NDArray[np.int64]:
    """Rows of the people named in a file, one id on each line; of all where `told` is empty."""
    if not told:
        return np.arange(catalog.num_users)
    path = Path(told)
    if not path.is_file():
        raise VitrineError(f"users {told!r} is no file; give one with an id on each line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise VitrineError(
            f"users {told!r} is not UTF-8 ({error.reason}); save it as that."
        ) from error
    return np.array([catalog.user_index(line.strip()) for line in lines if line.strip()], np.int64)


def part(work: Path, start: int) -> Path:
    return work / f"part-{start:09}.parquet"


def read_texts(folder: str | Path) -> pa.Table:
    """The rows of a `texts` artifact."""
    return pq.read_table(open_artifact(Path(folder), kind="texts").path / TEXTS_FILE)
