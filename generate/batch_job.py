"""Batch generation for all users: a row for each user and item, in parts, to one parquet file.

A job that is started again resumes at the first missing part. Under torchrun the parts are shared out
over the processes, each on its own device.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.artifacts import open_artifact, write_artifact
from catalog.atomic_write import replace_file, signal_progress
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.progress import track
from generate.conditioning import Ranker, derived_seed
from generate.config import BatchJobConfig
from generate.pseudonyms import user_key
from generate.requests import GenerationRequest, HistoryPrefix
from pretrain.devices import Compute, init_processes
from pretrain.request import result_request
from pretrain.work import check_claimed, claim_work

USERS_PER_PART = 64
"""Users whose rows are written to disk together."""
USER_KEY = "user_key"
"""In a parquet file's metadata: the fingerprint of the key behind its pseudonyms."""
Row = dict[str, object]


@dataclass(frozen=True)
class BatchJob:
    """What a batch job generates, and how its rows are stored."""

    kind: str
    """Kind of the artifact, and stem of its parquet file."""
    schema: pa.Schema
    generate_rows: Callable[[NDArray[np.int64]], list[Row]]
    """User rows (users,) → their output rows."""
    count: Callable[[pa.Table], Mapping[str, int]]
    """Output rows → counts that the manifest sums up."""


@dataclass(frozen=True)
class ItemSelection:
    """The items to generate for each user: the top k of their ranking, or the same items for all."""

    top_k: int = 0
    rows: Sequence[int] = ()
    """Item rows; used where `top_k` is 0."""


def run_batch_job(
    job: BatchJob, config: BatchJobConfig, catalog: Catalog, output: Path, compute: Compute
) -> Path:
    """Generates rows for all users of `config.users`; writes them as an artifact with one parquet file."""
    state = init_processes(compute.device)
    parents = {"generator": Path(config.generator)}
    if config.recommender:
        parents["recommender"] = Path(config.recommender)
    users = read_users(config.users, catalog)
    key = user_key().fingerprint
    settings = asdict(config) | {"users": catalog.user_ids[users].tolist() if config.users else ""}
    settings |= {"user_key": key, **compute.settings}  # one artifact has pseudonyms of one key
    request = result_request(job.kind, settings, parents, catalog.fingerprint)
    schema = job.schema.with_metadata({USER_KEY: key})
    work = output.with_name(f"{output.name}.work")
    if state.is_main_process:
        claim_work(work, request)
    state.wait_for_everyone()
    check_claimed(work, request, state.process_index)
    starts = range(0, len(users), USERS_PER_PART)
    own_starts = starts[state.process_index :: state.num_processes]
    missing = [start for start in own_starts if not part_path(work, start).exists()]
    title = f"Generating {job.kind} for {len(users):,} users"
    for start in track(missing, title, shown=state.is_main_process):
        rows = job.generate_rows(users[start : start + USERS_PER_PART])
        partial = part_path(work, start).with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows, schema), partial)
        replace_file(partial, part_path(work, start))
        signal_progress()
    state.wait_for_everyone()
    if state.is_main_process:
        with write_artifact(
            output,
            kind=job.kind,
            config=asdict(config),
            parents=parents,
            catalog=catalog.fingerprint,
            request=request,
            user_key=key,
        ) as staging:
            counts = _join_parts(
                job, schema, [part_path(work, start) for start in starts], staging.path
            )
            staging.metrics.update({"users": len(users), **counts, **compute.metrics})
        shutil.rmtree(work)  # only now: a job killed before can still finish it
    state.wait_for_everyone()
    return output


def _join_parts(
    job: BatchJob, schema: pa.Schema, parts: Sequence[Path], folder: Path
) -> dict[str, int]:
    """Writes one parquet file from its parts; returns the counts of rows and of `job.count`."""
    counts = {job.kind: 0}
    with pq.ParquetWriter(folder / f"{job.kind}.parquet", schema) as file:
        for part in parts:
            rows = pq.read_table(part, schema=schema)
            file.write_table(rows)
            counts[job.kind] += len(rows)
            for name, number in job.count(rows).items():
                counts[name] = counts.get(name, 0) + number
    return counts


def read_rows(folder: str | Path, kind: str) -> pa.Table:
    """Reads the rows of an artifact that `run_batch_job` wrote."""
    return pq.read_table(open_artifact(Path(folder), kind=kind).path / f"{kind}.parquet")


def build_requests(
    catalog: Catalog, ranker: Ranker, users: NDArray[np.int64], items: ItemSelection, seed: int
) -> list[GenerationRequest]:
    """Generation requests for `users`, in their order; each seed depends on `seed`, user and item alone."""
    histories = [np.asarray(catalog.interactions.history(user)) for user in users]
    states = ranker.user_states(histories)
    requests = []
    for user, history, state in zip(users.tolist(), histories, states, strict=True):
        chosen: Sequence[int] = items.rows
        if items.top_k:
            chosen = [item for item, _ in ranker.rank(history, items.top_k)]
        prefix = HistoryPrefix(user, len(history))
        requests += [
            GenerationRequest(state, item, derived_seed(seed, user, item), prefix, rank)
            for rank, item in enumerate(chosen)
        ]
    return requests


def parse_items(text: str, catalog: Catalog) -> ItemSelection:
    """`top:3` → the three best of each user; `ID,ID` → those items."""
    kind, colon, number = text.partition(":")
    if colon and kind == "top":
        if not number.isdecimal() or int(number) < 1:
            raise VitrineError(f"items is {text!r}; top takes a number from 1 on, such as top:3.")
        return ItemSelection(int(number))
    ids = [part.strip() for part in text.split(",") if part.strip()]
    if not ids:
        raise VitrineError("items is empty; give top:3 for each user's best, or ids of items.")
    return ItemSelection(rows=[catalog.item_index(item_id) for item_id in ids])


def read_users(file: str, catalog: Catalog) -> NDArray[np.int64]:
    """Returns the user rows of the ids in `file`, one on each line; all user rows where `file` is empty."""
    if not file:
        return np.arange(catalog.num_users)
    path = Path(file)
    if not path.is_file():
        raise VitrineError(f"users {file!r} is no file; give one with an id on each line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise VitrineError(
            f"users {file!r} is not UTF-8 ({error.reason}); save it as that."
        ) from error
    return np.array([catalog.user_index(line.strip()) for line in lines if line.strip()], np.int64)


def part_path(work: Path, start: int) -> Path:
    return work / f"part-{start:09}.parquet"
