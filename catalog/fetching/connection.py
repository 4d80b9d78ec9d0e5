"""HTTP over a connection to one checked network address, with a deadline for all that is read.

`http.client` connects, resolves and reads proxies nowhere here: it is given a socket that is connected
to an address which was checked, so that no second answer of a name server can lead elsewhere.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from catalog.fetching.address import PORTS, Address, RefusedError

AGENT = "Mozilla/5.0 (compatible; vitrine; catalog import)"
ACCEPT = "image/avif,image/webp,image/png,image/jpeg,image/*;q=0.8,*/*;q=0.1"


class StoppedError(Exception):
    """The run is being ended; nothing is recorded of the picture."""


class Deadline:
    """The end of an attempt, on the monotonic clock."""

    def __init__(self, seconds: float, timeout: float) -> None:
        """`timeout`: longest wait for a single answer in seconds."""
        self.end = time.monotonic() + seconds
        self.timeout = timeout

    def wait(self) -> float:
        """Seconds that the next operation may take; TimeoutError where none are left."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(left, self.timeout)


class Dial(Protocol):
    def __call__(self, address: str, port: int, timeout: float, /) -> socket.socket: ...


def dial(address: str, port: int, timeout: float) -> socket.socket:
    """A socket connected to a network address, given in numbers; OSError where nothing answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect((address, port))
        if connection.getpeername()[0] != address:
            raise RefusedError("a connection that leads elsewhere")
    except BaseException:
        connection.close()
        raise
    return connection


class OpenSockets:
    """The sockets in use, so that all can be shut down when the run ends."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self.stopped = False

    @contextmanager
    def using(self, connection: socket.socket) -> Iterator[socket.socket]:
        self._open.add(connection)
        try:
            if self.stopped:
                raise StoppedError
            yield connection
        finally:
            self._open.discard(connection)
            connection.close()

    def stop(self) -> None:
        """Ends every read that is under way."""
        self.stopped = True
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Reads(io.RawIOBase):
    """The bytes of a socket, none of which is waited for beyond the deadline."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self.connection.settimeout(self.deadline.wait())
        return self.connection.recv_into(buffer)


class _Socket:
    """What `http.client` asks of a socket."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self.connection, self.deadline = connection, deadline

    def sendall(self, data: bytes) -> None:
        self.connection.settimeout(self.deadline.wait())
        self.connection.sendall(data)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self.connection, self.deadline))

    def close(self) -> None:
        """The socket is closed by whoever opened it."""


class _Connection(http.client.HTTPConnection):
    auto_open = 0  # never connects by itself

    def connect(self) -> None:
        raise http.client.NotConnected


@contextmanager
def request(
    address: Address,
    found: Sequence[str],
    deadline: Deadline,
    tls: ssl.SSLContext,
    sockets: OpenSockets,
    dial: Dial = dial,
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET of `address`, sent to the first of the checked network addresses `found` that
    answers.

    The host's own name is in the request, in SNI, and what the certificate is verified for. Raises
    OSError (ssl.SSLError among them), TimeoutError, http.client.HTTPException, RefusedError.
    """
    with sockets.using(_first_that_answers(address, found, deadline, dial)) as plain:
        plain.settimeout(deadline.wait())
        secure = address.scheme == "https"
        used = tls.wrap_socket(plain, server_hostname=address.host) if secure else plain
        with sockets.using(used):
            connection = _Connection(address.host, address.port)
            connection.sock = _Socket(used, deadline)  # pyright: ignore[reportAttributeAccessIssue]
            connection.putrequest("GET", address.target, skip_host=True, skip_accept_encoding=True)
            for name, value in (
                ("Host", address.host_header),
                ("User-Agent", AGENT),
                ("Accept", ACCEPT),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
            ):
                connection.putheader(name, value)
            connection.endheaders()
            yield connection.getresponse()


def _first_that_answers(
    address: Address, found: Sequence[str], deadline: Deadline, dial: Dial
) -> socket.socket:
    assert address.scheme in PORTS
    error: OSError = OSError("the host has no network address")
    for one in found:
        try:
            return dial(one, address.port, deadline.wait())
        except OSError as failed:
            error = failed
    raise error
