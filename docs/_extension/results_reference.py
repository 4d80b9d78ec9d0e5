"""Every recorded benchmark result, generated from `benchmarks/results`."""

from benchmarks.record import load_records
from benchmarks.table import HEAD, results_page


def page() -> str:
    """The table of all records and a section for each, without the page's own head."""
    return results_page(load_records()).removeprefix(HEAD)
