"""Unites the types of columns that differ from block to block or file to file; at worst as text."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes the functions of its compute module when it is imported; no checker sees them.

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def merge_types(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds values of both exactly, or None where there is only text."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merge_structs(one, other)
    if is_list(one) and is_list(other):
        inner = merge_types(one.value_type, other.value_type)
        if inner is None:
            return None
        large = pa.types.is_large_list(one) or pa.types.is_large_list(other)
        return pa.large_list(inner) if large else pa.list_(inner)
    if is_text(one) and is_text(other):
        return pa.large_string()
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return pa.int64() if pa.uint64() not in (one, other) else None
    if is_number(one) and is_number(other):
        return pa.float64()
    if pa.types.is_timestamp(one) and pa.types.is_timestamp(other) and one.tz == other.tz:
        units = ["s", "ms", "us", "ns"]
        return max(one, other, key=lambda kind: units.index(kind.unit))
    return None


def _merge_structs(one: pa.StructType, other: pa.StructType) -> pa.DataType | None:
    kinds = {field.name: field.type for field in one}
    for field in other:
        kind = merge_types(kinds.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        kinds[field.name] = kind
    return pa.struct(list(kinds.items()))


def merge_schemas(schemas: list[pa.Schema]) -> tuple[pa.Schema, dict[str, list[str]]]:
    """All columns in order of appearance, and those that became text with the types that they had."""
    kinds: dict[str, pa.DataType] = {}
    conflicts: dict[str, list[str]] = {}
    for schema in schemas:
        for field in schema:
            before = kinds.get(field.name, pa.null())
            kind = merge_types(before, field.type)
            if kind is None or field.name in conflicts:
                if kind is None and not (is_text(before) and _is_date(field.type)):
                    names = conflicts.setdefault(field.name, [plain_name(before)])
                    names += [plain_name(field.type)] * (plain_name(field.type) not in names)
                kind = pa.string()
            kinds[field.name] = kind
    return pa.schema(list(kinds.items())), conflicts


def plain_name(kind: pa.DataType) -> str:
    """A type in words: numbers, texts, lists, objects."""
    if is_list(kind):
        return "lists"
    if pa.types.is_struct(kind):
        return "objects"
    if is_number(kind):
        return "numbers"
    return "texts" if is_text(kind) or _is_date(kind) else f"{kind}"


def _is_date(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], kind) for kind in schema.types], schema=schema)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of `schema`: missing ones null, others cast, at worst to text."""
    if batch.schema.equals(schema):
        return batch
    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            columns.append(cast(batch.column(place), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array as `kind`, a type that `merge_types` has made, or as text."""
    if array.type == kind:
        return array
    if pa.types.is_dictionary(array.type):
        return cast(array.cast(array.type.value_type), kind)
    if is_text(kind) and pa.types.is_nested(array.type):
        return pa.array([as_json(value) for value in array.to_pylist()], kind)
    if pa.types.is_nested(kind):
        return pa.array(array.to_pylist(), kind)
    if is_text(kind) and pa.types.is_boolean(array.type):
        return pc.if_else(array, pa.scalar("true", kind), pa.scalar("false", kind))
    return array.cast(kind)


def as_json(value: Any) -> str | None:
    """A value in text: JSON of what is nested or true or false, and others as they are."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
