"""Peers and we, side by side in one run; recorded results, one JSON file a claim."""

import os

# As the `vitrine` command does, and before torch is loaded: threads wait asleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
