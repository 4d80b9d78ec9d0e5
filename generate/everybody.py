"""Something made for everybody: a row for each person and item, block after block, to parquet.

Goes on where it was when it is started again. Under torchrun the blocks of people are shared out over
the processes, each on its own device.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from catalog.artifacts import open_artifact, write_artifact
from catalog.atomic_write import replace_file, signal_progress
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.progress import track
from generate.conditioning import Ranker, derived_seed
from generate.pseudonyms import user_key
from pretrain.request import result_request
from pretrain.work import check_claimed, claim_work

BLOCK = 64
"""People whose rows are written to disk together."""
USER_KEY = "user_key"
"""In a parquet file's metadata: the fingerprint of the key that its pseudonyms are made with."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """One row to come."""

    user: int
    """Row of the person."""
    item: int
    """Row of the item."""
    place: int
    """Of the item in the person's list, the best first."""
    state: int
    """Place of the person in the block."""
    seed: int
    """Depends on the seed asked for, the person and the item alone."""


def start_processes() -> Any:
    """What accelerate knows of this process among those that were started together."""
    from accelerate import PartialState

    # Nobody gives up on others that have more left to do.
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))


def make_for_all(
    kind: str,
    schema: pa.Schema,
    config: Any,
    catalog: Catalog,
    make_block: Callable[[NDArray[np.int64]], list[Row]],
    count: Callable[[pa.Table], Mapping[str, int]],
    output: Path,
) -> Path:
    """Writes an artifact `kind` with one file, `kind`.parquet: the rows of `make_block` (users).

    `config` has `generator`, `recommender` and `users` (see `wanted_users`); `count` says of a block's
    rows what the manifest sums up.
    """
    state = start_processes()
    parents = {"generator": Path(config.generator)}
    if config.recommender:
        parents["recommender"] = Path(config.recommender)
    users = wanted_users(config.users, catalog)
    key = user_key().fingerprint
    told = asdict(config) | {"users": catalog.user_ids[users].tolist() if config.users else ""}
    told |= {"user_key": key}  # the rows of one artifact are named under one key
    schema = schema.with_metadata({USER_KEY: key})
    request = result_request(kind, told, parents, catalog.fingerprint)
    work = output.with_name(f"{output.name}.work")
    if state.is_main_process:
        claim_work(work, request)
    state.wait_for_everyone()
    check_claimed(work, request, state.process_index)
    blocks = range(0, len(users), BLOCK)
    mine = blocks[state.process_index :: state.num_processes]
    left = [start for start in mine if not part(work, start).exists()]
    title = f"Making {kind} for {len(users):,} people"
    for start in track(left, title, shown=state.is_main_process):
        rows = make_block(users[start : start + BLOCK])
        partial = part(work, start).with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows, schema), partial)
        replace_file(partial, part(work, start))
        signal_progress()
    state.wait_for_everyone()
    if state.is_main_process:
        metrics: dict[str, int] = {"people": len(users), kind: 0}
        with (
            write_artifact(
                output,
                kind=kind,
                config=asdict(config),
                parents=parents,
                catalog=catalog.fingerprint,
                request=request,
                user_key=key,
            ) as staging,
            pq.ParquetWriter(staging.path / f"{kind}.parquet", schema) as file,
        ):
            for start in blocks:
                rows = pq.read_table(part(work, start), schema=schema)
                file.write_table(rows)
                metrics[kind] += len(rows)
                for name, number in count(rows).items():
                    metrics[name] = metrics.get(name, 0) + number
            staging.metrics.update(metrics)
        shutil.rmtree(work)  # only now: killed before, the next start finishes it
    state.wait_for_everyone()
    return output


def read_rows(folder: str | Path, kind: str) -> pa.Table:
    """The rows of an artifact that `make_for_all` wrote."""
    return pq.read_table(open_artifact(Path(folder), kind=kind).path / f"{kind}.parquet")


def wanted_rows(
    catalog: Catalog,
    ranker: Ranker,
    users: NDArray[np.int64],
    items: tuple[int, list[int]],
    seed: int,
) -> tuple[list[Wanted], torch.Tensor, Sequence[NDArray[np.integer]]]:
    """What is asked for these people, their states (people, width), and their histories."""
    best, listed = items
    histories = [np.asarray(catalog.interactions.history(user)) for user in users]
    rows = []
    for state, (user, history) in enumerate(zip(users.tolist(), histories, strict=True)):
        chosen: Sequence[int] = listed
        if best:
            chosen = [item for item, _ in ranker.rank(history, best)]
        rows += [
            Wanted(user, item, place, state, derived_seed(seed, user, item))
            for place, item in enumerate(chosen)
        ]
    return rows, ranker.user_states(histories), histories


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
