"""Benchmarks against peer libraries, and recorded results: one JSON file for each claim."""

import os

# As in the `vitrine` command, set before torch is loaded: idle OpenMP threads sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
