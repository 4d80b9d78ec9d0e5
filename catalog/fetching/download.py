"""Downloads one picture: redirects, attempts, limits of size, and what its bytes are."""

import hashlib
import http.client
import random
import re
import socket
import ssl
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

from PIL import Image

from catalog.atomic_write import replace_file
from catalog.fetching.address import Address, RefusedError, Resolver, parse_address, resolve
from catalog.fetching.config import FetchConfig
from catalog.fetching.connection import Deadline, Dial, OpenSockets, dial, request
from catalog.fetching.hosts import Hosts
from catalog.images import MAX_PIXELS
from catalog.picture_types import name_content, picture_suffix

REDIRECTS = 5
PIECE = 1 << 16
"""Bytes that are read at once."""
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each pause is twice the one before, less up to half of it."""
WARNINGS = threading.Lock()
"""Pillow warns about odd headers, and Python ignores warnings for all threads at once."""
FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "webp": "WEBP",
    "avif": "AVIF",
}
"""Suffix → the decoder that reads a picture's header."""


@dataclass(frozen=True)
class Outcome:
    """What became of one address: a file, or a reason."""

    suffix: str = ""
    sha256: str = ""
    num_bytes: int = 0
    reason: str = ""
    is_transient: bool = False
    """Whether another run may fare better."""


class _FailedError(Exception):
    """An attempt that failed; the message is the reason in a few words."""

    def __init__(
        self, reason: str, *, transient: bool = False, pause: float = 0.0, again: bool = True
    ) -> None:
        """`transient`: another attempt may fare better; `pause`: seconds before it that the server asks
        for; `again`: whether it is made in this run."""
        super().__init__(reason)
        self.transient, self.pause, self.again = transient, pause, transient and again


class _NoAnswerError(_FailedError):
    """A host that did not answer, or broke off."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, transient=True)


@dataclass
class Downloader:
    """Downloads pictures under one configuration; `download` may be called by many threads."""

    config: FetchConfig
    resolver: Resolver = resolve
    dial: Dial = dial
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    sockets: OpenSockets = field(default_factory=OpenSockets)
    hosts: Hosts = field(init=False)
    first_pause: float = FIRST_PAUSE

    def __post_init__(self) -> None:
        self.hosts = Hosts(self.config.per_host, self.config.delay)

    def stop(self) -> None:
        """Ends all downloads under way with StoppedError."""
        self.hosts.stop()
        self.sockets.stop()

    def download(self, url: str, stem: Path) -> Outcome:
        """Writes the picture to `stem` with the suffix of its type, whole or not at all.

        Raises StoppedError where the run ends, and OSError where the file cannot be written.
        """
        partial = stem.with_name(f".{stem.name}.partial")
        try:
            address = parse_address(url, self.config.ports)
            sha256, num_bytes = self._with_retries(address, partial)
            suffix = check_picture(partial, self.config.max_pixels)
            replace_file(partial, stem.with_name(f"{stem.name}.{suffix}"))
            return Outcome(suffix, sha256, num_bytes)
        except RefusedError as error:
            return Outcome(reason=str(error))
        except _FailedError as failed:
            return Outcome(reason=str(failed), is_transient=failed.transient)
        finally:
            partial.unlink(missing_ok=True)

    def _with_retries(self, address: Address, partial: Path) -> tuple[str, int]:
        for attempt in range(self.config.retries + 1):
            try:
                return self._attempt(address, partial)
            except _FailedError as failed:
                self.hosts.sleep(0)  # where the run is being ended, that is why it failed
                if not failed.again or attempt == self.config.retries:
                    raise
                pause = self.first_pause * 2**attempt * random.uniform(0.5, 1.0)
                self.hosts.sleep(min(max(pause, failed.pause), self.config.max_wait))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, address: Address, partial: Path) -> tuple[str, int]:
        """Writes the content behind an address; returns its sha256 and size.

        Every redirect is checked like the address itself.
        """
        deadline = Deadline(self.config.deadline, self.config.timeout)
        for _ in range(REDIRECTS + 1):
            if self.hosts.is_given_up(address.host):
                raise _FailedError("a host that does not answer", transient=True, again=False)
            waiting = time.monotonic()
            with self.hosts.request(address.host):
                deadline.end += time.monotonic() - waiting
                try:
                    answer = self._get(address, deadline, partial)
                except _FailedError as failed:
                    self.hosts.count(address.host, not isinstance(failed, _NoAnswerError))
                    self.hosts.pause(address.host, min(failed.pause, self.config.max_wait))
                    raise
                self.hosts.count(address.host, answered=True)
            if not isinstance(answer, Address):
                return answer
            address = answer
        raise RefusedError(f"more than {REDIRECTS} redirects")

    def _get(
        self, address: Address, deadline: Deadline, partial: Path
    ) -> tuple[str, int] | Address:
        """Writes what one address holds, or returns where it is redirected to."""
        with ExitStack() as stack:
            with _network_errors():
                found = self.hosts.public_addresses(address, self.resolver)
                sent = request(address, found, deadline, self.tls, self.sockets, self.dial)
                answer = stack.enter_context(sent)
            if answer.status in (301, 302, 303, 307, 308):
                place = _as_utf8(answer.headers.get("Location", ""))
                return parse_address(place, self.config.ports, address.url)
            _check_status(answer)
            digest = hashlib.sha256()
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                for piece in read_limited(answer, self.config.max_bytes):
                    if not file.tell() and len(piece) >= 16 and picture_suffix(piece) is None:
                        raise RefusedError(name_content(piece))
                    file.write(piece)
                    digest.update(piece)
                return digest.hexdigest(), file.tell()


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turns errors of the network into reasons."""
    try:
        yield
    except TimeoutError as error:
        raise _NoAnswerError("no answer in time") from error
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise _NoAnswerError("no answer of the name server") from error
        raise _FailedError("an unknown host") from error
    except ssl.SSLCertVerificationError as error:
        raise _FailedError("a certificate that is not valid") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _NoAnswerError("a broken connection") from error


def _check_status(answer: http.client.HTTPResponse) -> None:
    if answer.status == 200:
        return
    transient = answer.status == 429 or answer.status >= 500
    pause = retry_after(answer.headers.get("Retry-After", "")) if transient else 0.0
    raise _FailedError(f"HTTP status {answer.status}", transient=transient, pause=pause)


def retry_after(value: str) -> float:
    """Seconds that a header Retry-After asks for: a number, or a date; 0 where it is neither."""
    if re.fullmatch(r"\s*\d{1,9}\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def read_limited(answer: http.client.HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """The content of an answer, unpacked, piece by piece; RefusedError above `max_bytes`."""
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise RefusedError("packed in a way that is not read")
    too_large = RefusedError("more bytes than fetch.max_bytes")
    given = answer.length  # of what is sent, where the server says it
    if given is not None and given > max_bytes:
        raise too_large
    unpacker = None if coding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    received = total = 0
    while True:
        with _network_errors():
            piece = answer.read1(PIECE)
        received += len(piece)
        if received > max_bytes:
            raise too_large
        for content in _unpacked(piece, unpacker) if unpacker else [piece]:
            total += len(content)
            if total > max_bytes:
                raise too_large
            yield content
        if not piece:
            break
    if (given is not None and received < given) or (unpacker and not unpacker.eof):
        raise _NoAnswerError("a file that ends early")


def _unpacked(piece: bytes, unpacker: "zlib._Decompress") -> Iterator[bytes]:
    """The content of one piece, at most PIECE bytes at a time."""
    while piece:
        try:
            yield unpacker.decompress(piece, PIECE)
        except zlib.error as error:
            raise RefusedError("damaged packing") from error
        piece = unpacker.unconsumed_tail


def check_picture(path: Path, max_pixels: int) -> str:
    """The suffix of a picture by its bytes; RefusedError where they are none, or it is too large.

    Reads the header alone.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    suffix = picture_suffix(start)
    if suffix is None:
        raise RefusedError(name_content(start))
    try:
        with WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=[FORMATS[suffix]]) as image:
                width, height = image.size
    except Exception as error:  # decoders answer damaged bytes with nearly every kind of error
        raise RefusedError("a damaged picture") from error
    if width * height > min(max_pixels, MAX_PIXELS):
        raise RefusedError("more pixels than fetch.max_pixels")
    return suffix


def _as_utf8(text: str) -> str:
    """A header as UTF-8, where a server wrote it so; `http.client` reads Latin-1."""
    try:
        return text.encode("latin-1").decode("utf8")
    except UnicodeError:
        return text
