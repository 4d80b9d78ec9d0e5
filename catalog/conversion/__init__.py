"""Converts the tables of a source to a catalog's format on disk, and keeps it in the cache."""
