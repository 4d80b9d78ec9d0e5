"""Finds items whose text is in another language than those wanted, and drops their interactions."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import as_text
from catalog.errors import VitrineError, did_you_mean
from catalog.importing.load import skip_rows
from catalog.importing.rows_display import counted
from catalog.importing.store import Store
from catalog.importing.streams import Streams
from catalog.languages import CODES, likelihoods
from catalog.notes import EXAMPLES, NoteKind, Notes
from catalog.roles import Roles

PIECE = 1 << 13
"""Texts whose languages are compared at once."""
MARKUP = r"<[^<>]*>|&[#\w]{2,8};"
TELLING = {1: "in another language", -1: "undecided"}
"""Verdicts that are counted, with examples."""
Rows = NDArray[np.int64]


def check_languages(codes: Sequence[str]) -> None:
    """Raises VitrineError for a code of no language that is distinguished."""
    for code in codes:
        if code not in CODES:
            raise VitrineError(
                f"languages names {code!r}, which is not told apart from others."
                f"{did_you_mean(code, CODES)} Known are the codes of ISO 639-1 "
                f"{' '.join(sorted(CODES))}."
            )


def find_foreign(
    streams: Streams, ids: pa.ChunkedArray, roles: Roles, codes: Sequence[str], store: Store
) -> Rows:
    """The rows of items, of those with an id, that are clearly in none of the languages.

    Goes on behind the rows that an interrupted import has judged. No row where no languages are given.
    VitrineError where the items have no column of text.
    """
    if not codes:
        return np.empty(0, np.int64)
    columns = [roles[role] for role in ("title",) if role in roles] + list(roles.get("text", []))
    if not columns:
        raise VitrineError(
            f"languages is {', '.join(codes)}, but the items have no column of text; name one with "
            "roles: {title: <column>}."
        )
    if not store.has_table("judging"):
        store.run("CREATE TABLE foreign_items (row BIGINT)")
        store.run("CREATE TABLE judging AS SELECT 0::BIGINT AS rows, '{}' AS found")
    ((row, found),) = store.rows("SELECT rows, found FROM judging")
    counts: dict[str, Any] = json.loads(found)
    if row < len(ids):
        batches = skip_rows(streams.items(), row)
        for batch in counted(batches, "items: telling languages", len(ids) - row):
            verdicts = _verdicts(batch, columns, codes)
            own = ids.slice(row, batch.num_rows)
            verdicts[pc.is_null(own).to_numpy()] = 0
            for verdict, name in TELLING.items():
                _count(counts, name, np.flatnonzero(verdicts == verdict), batch, own, columns)
            foreign = pa.table({"row": row + np.flatnonzero(verdicts == 1)})
            row += batch.num_rows
            with store.transaction():
                store.insert("foreign_items", foreign)
                store.run("UPDATE judging SET rows = ?, found = ?", [row, json.dumps(counts)])
    _add_notes(counts, codes, streams.raw.notes)
    rows = [one.column(0).to_numpy() for one in store.batches("SELECT row FROM foreign_items")]
    return np.sort(np.concatenate([np.empty(0, np.int64), *rows]))


def _add_notes(counts: dict[str, Any], codes: Sequence[str], notes: Notes) -> None:
    """Notes the items that are left out, and those that are kept because their text says too little."""
    wanted = " or ".join(codes)
    sentences: dict[int, tuple[str, NoteKind]] = {
        1: (f"items are in another language than {wanted}, and are left out", "dropped"),
        -1: (f"items have too little text to tell whether it is {wanted}, and are kept", "decided"),
    }
    for verdict, (what, kind) in sentences.items():
        count, examples = counts.get(TELLING[verdict], (0, []))
        if count:
            notes.add("items", f"{count} {what}", kind, count=count, examples=examples)


def drop_foreign(store: Store, places: Rows) -> None:
    """Drops the interactions with the items at these places."""
    if not len(places):
        return
    store.run("CREATE OR REPLACE TABLE foreign_places (item INTEGER)")
    store.insert("foreign_places", pa.table({"item": places.astype(np.int32)}))
    store.drop("item IN (SELECT item FROM foreign_places)", "an item in another language")
    store.run("DROP TABLE foreign_places")


def _verdicts(batch: pa.RecordBatch, columns: list[str], codes: Sequence[str]) -> NDArray[np.int8]:
    pieces = [np.empty(0, np.int8)]
    for start in range(0, batch.num_rows, PIECE):
        texts = _texts(batch.slice(start, PIECE), columns)
        plain = pc.replace_substring_regex(texts, MARKUP, " ")
        pieces.append(likelihoods(plain).apart_from(codes))
    return np.concatenate(pieces)


def _texts(batch: pa.RecordBatch, columns: list[str]) -> pa.Array:
    """Title and text of each row, "" without both; a column without a text form is left out."""
    texts = []
    for name in columns:
        try:
            column = as_text(pa.chunked_array([batch.column(name)]), name)
        except VitrineError:  # the catalog is read without it, too, and says so
            continue
        texts.append(pc.fill_null(column.cast(pa.large_string()), "").combine_chunks())
    blank = pa.array([""] * batch.num_rows, pa.large_string())
    return pc.binary_join_element_wise(*(texts or [blank]), pa.scalar(". ", pa.large_string()))


def _count(
    counts: dict[str, Any],
    name: str,
    rows: Rows,
    batch: pa.RecordBatch,
    ids: pa.ChunkedArray,
    columns: list[str],
) -> None:
    """Adds rows of a batch to those counted under a name, and the first of them as examples."""
    before, examples = counts.get(name, (0, []))
    few = pa.array(rows[: EXAMPLES - len(examples)])
    shown = zip(
        ids.take(few).to_pylist(), _texts(batch.take(few), columns).to_pylist(), strict=True
    )
    examples = [*examples, *(f"{one}: {' '.join(text.split())[:60]}" for one, text in shown)]
    counts[name] = before + len(rows), examples
