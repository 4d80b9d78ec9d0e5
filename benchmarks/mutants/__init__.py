"""Planted faults: small patches to a copy of the code, each with tests that must then fail."""
