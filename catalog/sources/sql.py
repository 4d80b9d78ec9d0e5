"""Reads two queries of a database through SQLAlchemy."""

import os
import re
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa

from catalog.config import CatalogConfig
from catalog.errors import VitrineError, did_you_mean, one_line_message
from catalog.notes import Notes
from catalog.sources.base import RawTables
from catalog.sources.finding import refuse_subset
from catalog.sources.named_parts import named_parts

ROWS = 1 << 16
"""Rows that are fetched at once."""
NAMES = ("url", "items", "interactions", "edges")
QUERY = re.compile(r"\s*(select|with|table|values)\b", re.IGNORECASE)


def sql_tables(config: CatalogConfig) -> RawTables:
    """Tables or queries of a database: the path is `url=sqlite:///shop.db items=products
    interactions="SELECT user_id, item_id, bought_at FROM orders"` (and `edges=…`). The URL is SQLAlchemy's;
    a password is given as `$VARIABLE` of the environment. Any database is imported; a SQLite file is also
    read directly.
    """
    refuse_subset(config, "sql")
    example = "'url=sqlite:///shop.db items=products interactions=orders'"
    parts = named_parts(config.path, NAMES, NAMES[:3], example)
    url = _parsed(parts["url"])
    file = _sqlite_file(url)
    files = [one for one in (file, *_logs(file)) if one is not None and one.exists()]
    queries = {name: _query(parts[name]) for name in NAMES[1:] if name in parts}
    read = {name: partial(_batches, url, name, query) for name, query in queries.items()}
    return RawTables(
        name=Path(url.database or "database").stem,
        folder=file.parent if file else Path.cwd(),
        files=files,
        item_files=files,
        read_items=partial(_table, read["items"]),
        read_interactions=partial(_table, read["interactions"]),
        read_edges=partial(_table, read["edges"]) if "edges" in read else None,
        notes=Notes(),
        item_batches=read["items"],
        interaction_batches=read["interactions"],
        queries=tuple(f"{name}: {query}" for name, query in queries.items()),
        is_volatile=file is None,
    )


def _parsed(text: str) -> Any:
    """SQLAlchemy's URL, with variables of the environment in place of their names."""
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise VitrineError(
            "the source sql needs SQLAlchemy; install it with pip install sqlalchemy, and the "
            "driver of the database."
        ) from error
    try:
        given = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise VitrineError(
            f"catalog.path: {text!r} is no URL of a database; write it as sqlite:///shop.db or "
            "postgresql://user:$PASSWORD@host/database."
        ) from error
    if given.password is not None and not re.fullmatch(r"\$\w+|\$\{\w+\}", str(given.password)):
        shown = given.render_as_string(hide_password=True)
        raise VitrineError(
            "catalog.path holds a password, which artifacts would store; set it in an environment "
            f"variable and write {shown.replace('***', '$VARIABLE')}."
        )
    if given.password is None:
        return given
    password = os.path.expandvars(str(given.password))
    if password.startswith("$"):
        raise VitrineError(
            f"the environment has no variable {given.password}; set it to the database's password."
        )
    return given.set(password=password)


def _sqlite_file(url: Any) -> Path | None:
    """The file of a SQLite database; None for another one. VitrineError where it does not exist."""
    if url.get_backend_name() != "sqlite":
        return None
    file = Path(url.database or "").expanduser()
    if not file.is_file():
        near = [one.name for one in file.parent.iterdir()] if file.parent.is_dir() else []
        raise VitrineError(f"the database {file} does not exist.{did_you_mean(file.name, near)}")
    return file.resolve()


def _logs(file: Path | None) -> list[Path]:
    """Files beside a SQLite database with changes that are not in it yet."""
    return [] if file is None else [file.with_name(f"{file.name}-wal")]


def _query(text: str) -> str:
    """A query, or all of a table. VitrineError for statements that change data."""
    if QUERY.match(text):
        return text
    if re.fullmatch(r"[\w.\"`\[\] ]+", text) and " " not in text.strip():
        return f"SELECT * FROM {text}"
    raise VitrineError(
        f"catalog.path: {text!r} is neither a table nor a query, which begins with SELECT or WITH."
    )


def _batches(url: Any, name: str, query: str) -> Iterator[pa.RecordBatch]:
    """The answer of a query, in batches of one schema."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    schema: pa.Schema | None = None
    try:
        engine = create_engine(url)
        with engine.connect() as connection:
            options = {"stream_results": True, "yield_per": ROWS}
            answer = connection.execution_options(**options).execute(text(query))
            columns = list(answer.keys())
            for rows in answer.partitions(ROWS):
                batch = _batch(columns, rows, schema, name)
                schema = batch.schema
                yield batch
            if schema is None:
                yield _batch(columns, [], None, name)
        engine.dispose()
    except (SQLAlchemyError, ImportError, OSError) as error:
        reason = one_line_message(getattr(error, "orig", None) or error)
        raise VitrineError(
            f"the query of {name} failed at {url.render_as_string(hide_password=True)}: {reason}"
        ) from error


def _batch(columns: list[str], rows: Any, schema: pa.Schema | None, name: str) -> pa.RecordBatch:
    values = [[_plain(row[place]) for row in rows] for place in range(len(columns))]
    arrays = []
    for place, (column, given) in enumerate(zip(columns, values, strict=True)):
        kind = None if schema is None else schema.field(place).type
        try:
            array = pa.array(given, kind)
            if pa.types.is_null(array.type):
                array = array.cast(pa.large_string())
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            wanted = "one type" if kind is None else str(kind)
            raise VitrineError(
                f"the column {column} of {name} holds values of several types, and not {wanted} "
                f"throughout ({one_line_message(error)}); write CAST({column} AS TEXT) in the query."
            ) from error
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, columns)


def _plain(value: object) -> object:
    """A value in a type that Arrow has: decimals as numbers, other types as text."""
    if value is None or isinstance(value, (str, int, float, bytes, bool, datetime, date, time)):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (UUID, memoryview)):
        return str(value) if isinstance(value, UUID) else value.tobytes()
    return str(value)


def _table(batches: Any) -> pa.Table:
    return pa.Table.from_batches(list(batches()))
