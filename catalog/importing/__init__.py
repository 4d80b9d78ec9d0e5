"""Imports a catalog from any source into the canonical folder: filtered, sorted, in parquet."""
