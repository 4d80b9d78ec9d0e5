"""Fetches the pictures that a source names by web address, for `vitrine catalog import`."""
