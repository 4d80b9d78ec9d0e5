"""Limits of requests to one host: how many at once, how soon after each other, and pauses it asks for."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from catalog.fetching.address import Address, Resolver, public_addresses
from catalog.fetching.connection import StoppedError

KEPT = 4096
"""Hosts that are remembered while no request to them is under way."""
LOOKUP_SECONDS = 60.0
"""How long the checked network addresses of a host are used again."""
GIVE_UP_AFTER = 20
"""Failed attempts in a row, without any answer, after which a host is left alone for the run."""


@dataclass
class _Host:
    running: int = 0
    waiting: int = 0
    next_start: float = 0.0
    failures: int = 0
    found: tuple[str, ...] = ()
    looked_up: float = float("-inf")


class Hosts:
    """What is known of the hosts of one run; used by many threads."""

    def __init__(self, per_host: int, delay: float, lookup_seconds: float = LOOKUP_SECONDS) -> None:
        self.per_host, self.delay, self.lookup_seconds = per_host, delay, lookup_seconds
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._changed = threading.Condition()
        self.stopped = False

    def wait_until_free(self, host: str) -> float:
        """Seconds until a request to the host may start: 0 now; a tenth where its requests are running."""
        with self._changed:
            known = self._hosts.get(host)
            if known is None:
                return 0.0
            if known.running >= self.per_host:
                return 0.1
            return max(0.0, known.next_start - time.monotonic())

    @contextmanager
    def request(self, host: str) -> Iterator[None]:
        """Waits for a turn, and holds it. StoppedError where the run ends meanwhile."""
        with self._changed:
            known = self._get(host)
            known.waiting += 1
            try:
                self._wait_for_turn(known)
            finally:
                known.waiting -= 1
            known.running += 1
            known.next_start = time.monotonic() + self.delay
        try:
            yield
        finally:
            with self._changed:
                known.running -= 1
                self._changed.notify_all()

    def _wait_for_turn(self, known: _Host) -> None:
        while not self.stopped:
            wait = known.next_start - time.monotonic()
            is_full = known.running >= self.per_host
            if not is_full and wait <= 0:
                return
            self._changed.wait(None if is_full else wait)
        raise StoppedError

    def pause(self, host: str, seconds: float) -> None:
        """No request to the host starts for so long."""
        with self._changed:
            known = self._get(host)
            known.next_start = max(known.next_start, time.monotonic() + seconds)

    def count(self, host: str, answered: bool) -> None:
        """Counts attempts in a row to which the host did not answer."""
        with self._changed:
            known = self._get(host)
            known.failures = 0 if answered else known.failures + 1

    def is_given_up(self, host: str) -> bool:
        with self._changed:
            known = self._hosts.get(host)
            return known is not None and known.failures >= GIVE_UP_AFTER

    def public_addresses(self, address: Address, resolver: Resolver) -> tuple[str, ...]:
        """The checked network addresses of a host, kept for a minute; errors as of the function."""
        with self._changed:
            known = self._get(address.host)
            if known.found and time.monotonic() - known.looked_up < self.lookup_seconds:
                return known.found
        found = tuple(public_addresses(address, resolver))
        with self._changed:
            known.found, known.looked_up = found, time.monotonic()
        return found

    def sleep(self, seconds: float) -> None:
        """Waits; StoppedError as soon as the run ends."""
        end = time.monotonic() + seconds
        with self._changed:
            while not self.stopped and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            if self.stopped:
                raise StoppedError

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def _get(self, host: str) -> _Host:
        known = self._hosts.setdefault(host, _Host())
        self._hosts.move_to_end(host)
        if len(self._hosts) > KEPT:
            now = time.monotonic()
            for name, one in self._hosts.items():
                if not (one.running or one.waiting or one.next_start > now) and name != host:
                    del self._hosts[name]
                    break
        return known
