"""Filters interactions in the database, in a fixed order, and counts what each one drops.

1. rows without a user or an item, 2. `min_rating`, 3. items that the items table lacks, 4. `languages` (in
languages.py), 5. `since` and `until`, 6. `sample_users`, 7. `drop_repeats`, 8. `min_user_interactions` and
`min_item_interactions`.
"""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from catalog.errors import VitrineError
from catalog.importing.config import ImportConfig
from catalog.importing.languages import check_languages
from catalog.importing.load import Reader
from catalog.importing.store import Store
from catalog.notes import Notes
from catalog.values.dates import BY_FILE_ORDER
from catalog.values.ids import align_ids, match_hint

PER_SECOND = {
    "seconds": 1,
    "milliseconds": 1_000,
    "microseconds": 1_000_000,
    "nanoseconds": 1_000_000_000,
}
EXAMPLE_IDS = 100_000
"""Unknown ids that are compared with those of the items for a hint."""


def check_filters(config: ImportConfig) -> None:
    """Raises VitrineError for settings that no source can fulfil."""
    check_languages(config.languages)
    for setting in ("since", "until"):
        if date := getattr(config, setting):
            _moment(date, setting)
    window = [_moment(date, "since") for date in (config.since, config.until) if date]
    if len(window) == 2 and window[0] >= window[1]:
        raise VitrineError(
            f"since {config.since} is not before until {config.until}; exchange them."
        )
    wanted = config.sample_users
    if wanted is not None and wanted >= 1 and wanted != int(wanted):
        raise VitrineError(
            f"sample_users is {wanted:g}; give a fraction below 1 or a whole number of users."
        )


def refuse_repeated_ids(store: Store, item_ids: pa.ChunkedArray) -> None:
    """Raises VitrineError where two items have one id."""
    given = pa.table({"item_id": item_ids.drop_null()})
    repeated = "FROM (SELECT item_id FROM given GROUP BY item_id HAVING count(*) > 1)"
    ((count,),) = store.query(given, f"SELECT count(*) {repeated}")
    if count:
        named = store.query(given, f"SELECT item_id {repeated} LIMIT 3")
        first = ", ".join(one for (one,) in named)
        raise VitrineError(f"items name {count} ids more than once ({first}); keep one row each.")


def filter_rows(
    store: Store, reader: Reader, item_ids: pa.ChunkedArray, config: ImportConfig, notes: Notes
) -> pa.ChunkedArray:
    """Filters the table `kept` up to `unknown_items`, then replaces ids by numbers.

    Its columns are then row, user, item (place among `item_ids`), and the optional ones; the table
    `users` holds the id of each user. Returns the ids of the items, which may be aligned with those of
    the interactions (see `align_ids`).
    """
    for role in ("user_id", "item_id"):
        missing = store.number(f"SELECT count(*) FROM kept WHERE {role} IS NULL")
        if missing == store.num_kept:
            raise VitrineError(
                f"no row of interactions has a {role}; name the column that holds it with roles: "
                f"{{{role}: <column>}}."
            )
        store.drop(f"{role} IS NULL", f"no {role}", missing)
    if config.min_rating is not None:
        _drop_low_ratings(store, config.min_rating)
    item_ids = _number_items(store, item_ids, notes)
    _drop_unknown_items(store, item_ids, config)
    _number_ids(store, reader)
    return item_ids


def select_rows(store: Store, reader: Reader, config: ImportConfig) -> None:
    """The filters of numbered interactions: time, sample of users, repeats, k-core."""
    if reader.times is not None:
        missing = store.number("SELECT count(*) FROM kept WHERE time IS NULL")
        if missing:
            raise VitrineError(
                f"the column {reader.times.name} lacks {missing} times; fill them in, or "
                f"{BY_FILE_ORDER}."
            )
    for setting, sign in (("since", "<"), ("until", ">=")):
        if date := getattr(config, setting):
            bound = _ticks(date, setting, reader)
            word = "before" if setting == "since" else "on or after"
            store.drop(f"time {sign} {bound}", f"{word} {date}")
    if config.sample_users is not None:
        _sample_users(store, config.sample_users, config.seed)
    if config.drop_repeats:
        time = "time" if reader.times is not None else "row"
        store.run(
            "CREATE TABLE repeated AS SELECT row FROM (SELECT row, row_number() OVER "
            f"(PARTITION BY user, item ORDER BY {time}, row) AS number FROM kept) WHERE number > 1"
        )
        count = store.number("SELECT count(*) FROM repeated")
        store.drop("row IN (SELECT row FROM repeated)", "repeats an earlier one", count)
        store.run("DROP TABLE repeated")
    _k_core(store, config)


def _drop_low_ratings(store: Store, least: float) -> None:
    columns = [name for (name,) in store.rows("SELECT name FROM pragma_table_info('kept')")]
    if "rating" not in columns:
        raise VitrineError(
            f"min_rating is {least}, but the interactions have no rating column; "
            "name it with roles: {rating: <column>}."
        )
    best = store.rows("SELECT max(rating) FROM kept")[0][0]
    if best is None or best < least:
        raise VitrineError(f"no interaction is rated {least} or better; the best is {best}.")
    store.drop("rating IS NULL", "no rating")
    store.drop(f"rating < {least!r}", f"rated below {least:g}")


def _number_items(store: Store, item_ids: pa.ChunkedArray, notes: Notes) -> pa.ChunkedArray:
    """Fills the table `items` with the ids and their places."""

    def fill(ids: pa.ChunkedArray) -> None:
        store.run("CREATE OR REPLACE TABLE items (item INTEGER, item_id VARCHAR)")
        start = 0
        for chunk in ids.chunks:
            places = pa.array(np.arange(start, start + len(chunk), dtype=np.int32))
            store.insert("items", pa.table({"item": places, "item_id": chunk}))
            start += len(chunk)

    fill(item_ids)
    if store.rows("SELECT 1 FROM kept SEMI JOIN items USING (item_id) LIMIT 1"):
        return item_ids
    # No id of one table is in the other: they may differ in a ".0" at their ends.
    distinct = store.rows("SELECT item_id FROM kept GROUP BY item_id ORDER BY min(row)")
    ids = pa.chunked_array([pa.array([one for (one,) in distinct], pa.large_string())])
    aligned, aligned_items = align_ids(ids, item_ids, notes)
    if aligned is not ids:
        store.replace(
            "kept", r"SELECT * REPLACE (regexp_replace(item_id, '\.0+$', '') AS item_id) FROM kept"
        )
    if aligned_items is not item_ids:
        fill(aligned_items)
    return aligned_items


def _drop_unknown_items(store: Store, item_ids: pa.ChunkedArray, config: ImportConfig) -> None:
    unknown = "item_id NOT IN (SELECT item_id FROM items)"
    count = store.number("SELECT count(*) FROM kept ANTI JOIN items USING (item_id)")
    if not count:
        return
    if config.unknown_items == "error" or count == store.num_kept:
        distinct = store.number(
            "SELECT count(DISTINCT item_id) FROM kept ANTI JOIN items USING (item_id)"
        )
        found = store.rows(
            "SELECT item_id FROM kept ANTI JOIN items USING (item_id) GROUP BY item_id "
            f"ORDER BY min(row) LIMIT {EXAMPLE_IDS}"
        )
        ids = pa.chunked_array([pa.array([one for (one,) in found], pa.large_string())])
        named, hint = ", ".join(ids[:3].to_pylist()), match_hint(ids, item_ids)
        if count == store.num_kept:
            known = ", ".join(item_ids[:3].to_pylist())
            raise VitrineError(
                f"no interaction names a known item ({named} … against {known} …); {hint}check the "
                "roles of both item_id columns."
            )
        raise VitrineError(
            f"{count} of {store.num_kept} interactions name {distinct} items the items table lacks "
            f"({named}); {hint}add them, or set unknown_items: drop."
        )
    store.drop(unknown, "an item that the items lack", count)


def _number_ids(store: Store, reader: Reader) -> None:
    """Replaces ids by numbers: sorting and counting read less, and memory holds more of them."""
    store.run(
        "CREATE TABLE users AS SELECT (row_number() OVER (ORDER BY first) - 1)::INTEGER AS user, "
        "user_id FROM (SELECT user_id, min(row) AS first FROM kept GROUP BY user_id)"
    )
    store.replace(
        "kept",
        "SELECT kept.* EXCLUDE (user_id, item_id), users.user, items.item FROM kept "
        "JOIN users USING (user_id) JOIN items USING (item_id)",
    )
    store.run("DROP TABLE items")


def _ticks(date: str, setting: str, reader: Reader) -> int:
    """A date in the unit of the times."""
    times = reader.times
    if times is None or times.unit not in PER_SECOND:
        why = "have no times" if times is None else f"have no dates in the column {times.name}"
        raise VitrineError(
            f"{setting} is {date}, but the interactions {why}; leave {setting} out, or name the "
            "column of the dates with roles: {time: <column>}."
        )
    return round(_moment(date, setting).timestamp() * PER_SECOND[times.unit])


def _moment(date: str, setting: str) -> datetime:
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        raise VitrineError(
            f"{setting} is {date!r}, which is no date; write it as 2020-01-31."
        ) from None
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _sample_users(store: Store, wanted: float, seed: int) -> None:
    draw = f"md5_number_lower('{seed}:' || user_id)"
    present = f"SELECT user, {draw} AS draw FROM users WHERE user IN (SELECT user FROM kept)"
    if wanted < 1:
        chosen = f"SELECT user FROM ({present}) WHERE draw < {round(wanted * 2**64)}::UHUGEINT"
    else:
        chosen = f"SELECT user FROM ({present}) ORDER BY draw, user LIMIT {int(wanted)}"
    store.run(f"CREATE TABLE sampled AS {chosen}")
    store.drop("user NOT IN (SELECT user FROM sampled)", "a user outside the sample")
    store.run("DROP TABLE sampled")


def _k_core(store: Store, config: ImportConfig) -> None:
    least = {"user": config.min_user_interactions, "item": config.min_item_interactions}
    asked = {key: number for key, number in least.items() if number > 1}
    dropped = 1
    while dropped:
        dropped = 0
        for key, number in asked.items():
            store.run(
                f"CREATE OR REPLACE TABLE few AS SELECT {key}, count(*) AS rows FROM kept "
                f"GROUP BY {key} HAVING count(*) < {number}"
            )
            count = store.number("SELECT sum(rows)::BIGINT FROM few")
            noun = "a user" if key == "user" else "an item"
            reason = f"{noun} with fewer than {number} interactions"
            dropped += store.drop(f"{key} IN (SELECT {key} FROM few)", reason, count)
        if len(asked) < 2:
            break
    store.run("DROP TABLE IF EXISTS few")
