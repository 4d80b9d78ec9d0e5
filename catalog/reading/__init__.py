"""Recognises and reads the files of tables: what they are is decided by their whole content, and noted."""

from catalog.reading.recognize import FileFormat, recognize
from catalog.reading.table import (
    BatchReader,
    batch_reader,
    read_batches,
    read_table,
    unite_batches,
    unite_tables,
)

__all__ = [
    "BatchReader",
    "FileFormat",
    "batch_reader",
    "read_batches",
    "read_table",
    "recognize",
    "unite_batches",
    "unite_tables",
]
