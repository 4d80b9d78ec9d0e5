"""Redirects log lines and warnings of other libraries to a file: the terminal shows Vitrine's lines.

Their warnings and log lines go to `library.log` in the cache folder, or to the file $VITRINE_LOG names,
and so do Python's own warnings. What ends a run is an exception, which nothing here hides.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from catalog.cache import cache_folder

LARGEST = 5_000_000
"""Bytes after which the log file is overwritten."""
SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # of weights that are loaded, too
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""Environment variables that libraries read when they are imported."""


def log_path() -> Path:
    return Path(os.environ.get("VITRINE_LOG") or cache_folder() / "library.log")


def redirect_library_logs() -> None:
    """Redirects the logs of libraries; to be called before any library is imported.

    Libraries make their loggers when they are imported, each with a handler of its own, so it is the
    class of logger that sends their lines elsewhere.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.setLoggerClass(LibraryLogger)
    logging.captureWarnings(True)


class LibraryLogger(logging.Logger):
    """Writes each record to the log file, and prints none."""

    def callHandlers(self, record: logging.LogRecord) -> None:
        with _writer() as write:
            write.handle(record)


@contextlib.contextmanager
def _writer() -> Iterator[logging.Handler]:
    """A handler opened for each line: lines are few, and several processes share the file."""
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists() or path.stat().st_size > LARGEST
        handler: logging.Handler = logging.FileHandler(path, "w" if fresh else "a", "utf-8")
    except OSError:  # a disk that is full or read-only is no reason to stop
        handler = logging.NullHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    )
    try:
        yield handler
    finally:
        handler.close()
