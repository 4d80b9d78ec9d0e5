"""Benchmarks against peer libraries, and recorded results: one JSON file for each claim."""

import os

# As the `vitrine` command does, and before torch is loaded: threads wait asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
