"""Fetches every picture that an import names by web address: many at once, each once, resumably."""

import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.fetching.address import RefusedError, parse_address
from catalog.fetching.config import FetchConfig
from catalog.fetching.connection import StoppedError
from catalog.fetching.download import Downloader, Outcome
from catalog.fetching.log import FetchLog, picture_path
from catalog.notes import EXAMPLES, Notes
from catalog.progress import track

ACTIVE = 4
"""Hosts, as a multiple of the threads, between which the next address is chosen."""
SECONDS_TO_END = 5.0
"""How long an interrupted run waits for threads that are connecting; what they do is not kept."""
LONGEST_KEPT = 200
"""Letters that are kept of an address which is refused for its form."""
Result = tuple[str, str, Outcome | BaseException]


@dataclass
class _Queue:
    """The addresses of one host that are still to be fetched, and those under way."""

    urls: Iterator[tuple[str, str]]
    running: int = 0
    is_empty: bool = False


class Fetcher:
    """The pictures of one import that are named by web addresses."""

    def __init__(
        self, folder: Path, config: FetchConfig, downloader: Downloader | None = None
    ) -> None:
        """`folder`: where pictures and log are kept; VitrineError where it holds other files."""
        self.config = config
        self.log = FetchLog(folder)
        self.downloader = downloader or Downloader(config)
        self._work: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def close(self) -> None:
        self.log.close()

    def want(self, urls: Iterable[str]) -> None:
        """Adds addresses that are needed; one that is needed twice is fetched once."""
        self.log.want(self._parsed(url) for url in urls)

    def _parsed(self, url: str) -> tuple[str, str, str]:
        """(address in normal form, host, reason why it is refused)."""
        try:
            address = parse_address(url, self.config.ports)
            return address.url, address.host, ""
        except RefusedError as error:
            return without_login(url.strip()[:LONGEST_KEPT]), "", str(error)

    def file_of(self, url: str) -> Path | None:
        """The file of an address; None where there is none."""
        try:
            return self.log.file_of(parse_address(url, self.config.ports).url)
        except RefusedError:
            return None

    def fetch(self) -> None:
        """Fetches what is needed and not there; what is there when this is interrupted, stays."""
        left = self.log.num_left
        if not left:
            return
        threads = [
            threading.Thread(target=self._download_all, name=f"fetch-{number}", daemon=True)
            for number in range(min(self.config.concurrency, left))
        ]
        for thread in threads:
            thread.start()
        finished = self._finished(len(threads))
        try:
            for _ in track(range(left), "pictures: fetching"):
                key, url, outcome = next(finished)
                if isinstance(outcome, BaseException):
                    raise outcome
                self.log.put(key, url, outcome)
        finally:
            self.downloader.stop()
            for _ in threads:
                self._work.put(None)
            end = time.monotonic() + SECONDS_TO_END
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            self._record_rest()
            self.log.flush()

    def _record_rest(self) -> None:
        """Records what was finished when the run was interrupted."""
        while not self._results.empty():
            key, url, outcome = self._results.get()
            if isinstance(outcome, Outcome):
                self.log.put(key, url, outcome)

    def _finished(self, num_threads: int) -> Iterator[Result]:
        """Hands addresses to the threads, of hosts that are free; yields what became of each."""
        hosts = self.log.hosts()
        active: dict[str, _Queue] = {}
        host_of: dict[str, str] = {}
        while True:
            while len(active) < num_threads * ACTIVE and (host := next(hosts, None)) is not None:
                active[host] = _Queue(self.log.urls_of(host))
            soonest = self._hand_out(active, host_of, num_threads)
            try:
                key, url, outcome = self._results.get(timeout=soonest)
            except queue.Empty:
                continue
            done = active[host := host_of.pop(key)]
            done.running -= 1
            if done.is_empty and not done.running:
                del active[host]
            yield key, url, outcome

    def _hand_out(
        self, active: dict[str, _Queue], host_of: dict[str, str], num_threads: int
    ) -> float | None:
        """Gives idle threads work; returns the seconds until a host is free, None where none will be."""
        waits = [float("inf")]
        for host, one in list(active.items()):
            while len(host_of) < num_threads and not one.is_empty:
                wait = self.downloader.hosts.wait_until_free(host)
                if one.running >= self.config.per_host or wait > 0:
                    waits.append(wait if one.running < self.config.per_host else float("inf"))
                    break
                picture = next(one.urls, None)
                if picture is None:
                    one.is_empty = True
                    if not one.running:
                        del active[host]
                    break
                one.running += 1
                host_of[picture[0]] = host
                self._work.put(picture)
        soonest = min(waits)
        return None if soonest == float("inf") else max(soonest, 0.001)

    def _download_all(self) -> None:
        """The work of one thread."""
        while (picture := self._work.get()) is not None:
            key, url = picture
            try:
                stem = self.log.folder / picture_path(key, "")
                self._results.put((key, url, self.downloader.download(url, stem)))
            except BaseException as error:  # the main thread raises it
                self._results.put((key, url, error))
                if isinstance(error, StoppedError):
                    return

    def counts(self) -> dict[str, object]:
        """{read, dropped: {reason: addresses}, written} of the addresses that are needed."""
        listed = self.log.counts()
        dropped = {reason: number for reason, _, number, _ in listed if reason}
        total = sum(number for _, _, number, _ in listed)
        return {"read": total, "dropped": dropped, "written": total - sum(dropped.values())}

    @property
    def num_transient(self) -> int:
        """Addresses that another run may fetch."""
        return sum(number for reason, transient, number, _ in self.log.counts() if transient)

    def add_notes(self, where: str, notes: Notes) -> None:
        """Notes what was fetched, and for each reason how many pictures were not."""
        counts = self.counts()
        if not counts["read"]:
            return
        notes.add(
            where,
            f"{counts['written']} of {counts['read']} web addresses gave a picture, kept in "
            f"{self.log.folder.name}",
        )
        for reason, transient, number, items in self.log.counts():
            if reason:
                again = "; the same command fetches them again" if transient else ""
                notes.add(
                    where,
                    f"{number} web addresses gave none: {reason}",
                    "empty",
                    count=items,
                    examples=self.log.examples(reason, EXAMPLES),
                    remedy=again.removeprefix("; "),
                )


def without_login(url: str) -> str:
    """The address without a user name and password."""
    return re.sub(r"(?<=//)[^/?#]*@", "…@", url)
