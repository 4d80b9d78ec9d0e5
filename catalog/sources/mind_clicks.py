"""Reads the behaviors of MIND in batches: histories of each part, then the clicks of its impressions."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.notes import EXAMPLES, Notes
from catalog.reading import BatchReader, batch_reader

COLUMNS = ["impression_id", "user_id", "time", "history", "impressions"]
TIME = "%m/%d/%Y %I:%M:%S %p"
USERS = 1 << 14
"""Users whose histories are one batch."""
PENDING = 1 << 18
"""Rows that are compared with the users' first impressions at once, at least."""


def click_reader(parts: dict[str, Path], config: CatalogConfig, notes: Notes) -> BatchReader:
    """user_id, news_id, time and, where there are several parts, split, of `behaviors.tsv` by subset.

    The first call reads all files once for the users' histories, which memory holds as they are written.
    """
    readers = {part: batch_reader(path, config, notes, COLUMNS) for part, path in parts.items()}
    surveys: dict[str, _Survey] = {}

    def read() -> Iterator[pa.RecordBatch]:
        if not surveys:
            surveys.update(_labelled(parts, readers, notes))
        names = {part: part for part in surveys}
        if set(names) == {"train", "validation"}:
            notes.add("behaviors.tsv", "the part dev is the test part, as no other has labels")
            names["validation"] = "test"
        for part, survey in surveys.items():
            for batch in survey.histories():
                yield _named(batch, part and "train")
            for batch in readers[part]():
                yield _named(_clicks(batch), names[part])

    return read


def _labelled(
    parts: dict[str, Path], readers: dict[str, BatchReader], notes: Notes
) -> "dict[str, _Survey]":
    """What is known of the parts with labels; VitrineError where the first has none."""
    surveys: dict[str, _Survey] = {}
    known = pa.array([], pa.string())
    for part, path in parts.items():
        survey = _Survey(path)
        for batch in readers[part]():
            survey.add(batch)
        survey.add_notes(notes)
        if not survey.is_labelled and not surveys:
            raise VitrineError(
                f"{path} has no labels, such as N1-1 for a click; give the train or dev part."
            )
        if not survey.is_labelled:
            where = str(path.relative_to(path.parents[1]))
            notes.add(where, "has no labels and is left out", "dropped")
            continue
        known = survey.finish(known)
        surveys[part] = survey
    notes.add(
        "behaviors.tsv",
        "histories are undated; each is read before all impressions of its part, a second apart",
        remedy="compare with a split by time only on interactions after the first impression",
    )
    return surveys


@dataclass
class _Survey:
    """What is known of a part after it was read once."""

    path: Path
    num_rows: int = 0
    num_shown: int = 0
    num_clicked: int = 0
    is_labelled: bool = False
    broken: int = 0
    """Impressions whose time cannot be read."""
    examples: list[str] = field(default_factory=list)
    begin: int | None = None
    """The first time in seconds."""
    firsts: list[pa.Table] = field(default_factory=list)
    """Users' first impressions (user_id, history, missing, time, row), and rows to be compared with them."""

    def add(self, batch: pa.RecordBatch) -> None:
        moments = _moments(batch)
        missing = pc.is_null(moments)
        flat = pc.split_pattern(batch["impressions"], " ").flatten()
        self.num_shown += len(flat)
        self.num_clicked += _clicks(batch).num_rows
        self.is_labelled |= bool(pc.any(pc.match_substring_regex(flat, r"-[01]$")).as_py())
        self.broken += moments.null_count
        unread = batch["time"].filter(missing)[: EXAMPLES - len(self.examples)]
        self.examples += unread.to_pylist()
        found = [
            one for one in (self.begin, pc.min(moments.cast(pa.int64())).as_py()) if one is not None
        ]
        self.begin = min(found, default=None)
        rows = np.arange(self.num_rows, self.num_rows + batch.num_rows)
        self.num_rows += batch.num_rows
        columns = {"user_id": batch["user_id"], "history": batch["history"]}
        columns |= {"missing": missing, "time": moments, "row": pa.array(rows)}
        self.firsts.append(_first_of_users(pa.table(columns)))
        if sum(map(len, self.firsts[1:])) > max(PENDING, len(self.firsts[0])):
            self.firsts = [_first_of_users(pa.concat_tables(self.firsts))]

    def add_notes(self, notes: Notes) -> None:
        """Notes what is left out; VitrineError where no time can be read."""
        if self.broken and self.broken == self.num_rows:
            raise VitrineError(
                f"{self.path} has no times such as 11/15/2019 10:22:32 AM ({self.examples[0]!r}); it is "
                "no behaviors.tsv of MIND."
            )
        if self.broken:
            notes.add(
                self.path.name,
                f"{self.broken} impressions have no time that can be read, and are left out",
                "dropped",
                count=self.broken,
                examples=self.examples,
            )
        if self.is_labelled:
            count = self.num_shown - self.num_clicked
            what = f"{count} news that were shown and not clicked are no interactions"
            notes.add(self.path.name, what, "dropped", count=count)

    def finish(self, known: pa.Array) -> pa.Array:
        """Keeps the histories of users that are not known yet; returns all that are known then."""
        firsts = _first_of_users(pa.concat_tables(self.firsts))
        new = firsts.filter(pc.invert(pc.is_in(firsts["user_id"], value_set=known)))
        self.firsts = [new.select(["user_id", "history"]).combine_chunks()]
        return pa.concat_arrays([known, *(one.cast(known.type) for one in new["user_id"].chunks)])

    def histories(self) -> Iterator[pa.RecordBatch]:
        """The histories, before the first impression, a second apart."""
        for start in range(0, len(self.firsts[0]), USERS):
            yield _unfolded(self.firsts[0].slice(start, USERS), self.begin or 0)


def _first_of_users(table: pa.Table) -> pa.Table:
    """The first row of each user, by time and place in the file."""
    keys = [("missing", "ascending"), ("time", "ascending"), ("row", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys)
    users = pa.table({"user": table["user_id"].take(order), "row": order})
    firsts = users.group_by("user", use_threads=False).aggregate([("row", "first")])
    return table.take(firsts["row_first"]).combine_chunks()


def _moments(batch: pa.RecordBatch) -> pa.Array:
    """Times of impressions; null where one cannot be read."""
    trimmed = pc.utf8_trim_whitespace(batch["time"])
    return pc.strptime(trimmed, format=TIME, unit="s", error_is_null=True)


def _clicks(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The clicks of impressions with a time, one row each."""
    moments = _moments(batch)
    lists = pc.split_pattern(batch["impressions"], " ")
    flat, parents = lists.flatten(), pc.list_parent_indices(lists)
    clicked = pc.and_(pc.ends_with(flat, "-1"), pc.is_valid(moments).take(parents))
    rows = parents.filter(clicked)
    columns = {
        "user_id": batch["user_id"].take(rows),
        "news_id": pc.replace_substring_regex(flat.filter(clicked), r"-1$", ""),
        "time": moments.take(rows),
    }
    return pa.RecordBatch.from_pydict(columns)


def _unfolded(firsts: pa.Table, begin: int) -> pa.RecordBatch:
    """One row for each news of the histories."""
    users, histories = (firsts[name].combine_chunks() for name in ("user_id", "history"))
    lists = pc.split_pattern(pc.utf8_trim_whitespace(histories), " ")
    parents, flat = pc.list_parent_indices(lists), lists.flatten()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    starts = np.cumsum(lengths) - lengths
    owners = parents.to_numpy(zero_copy_only=False)
    left = lengths[owners] - (np.arange(len(flat)) - starts[owners])
    times = pa.array(begin - left).cast(pa.timestamp("s"))
    columns = {"user_id": users.take(parents), "news_id": flat, "time": times}
    return pa.RecordBatch.from_pydict(columns).filter(pc.not_equal(flat, ""))


def _named(batch: pa.RecordBatch, split: str) -> pa.RecordBatch:
    """The batch with a column `split`, where it has a name."""
    if not split:
        return batch
    return batch.append_column("split", pa.array([split] * batch.num_rows, pa.string()))
