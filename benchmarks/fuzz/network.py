"""Addresses of pictures, answers of name servers and of servers: no connection leaves the public internet."""

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz.edits import edited
from benchmarks.fuzz.kit import Parser
from catalog.fetching.address import RefusedError, parse_address
from catalog.fetching.config import FetchConfig
from catalog.fetching.download import Downloader

URLS = [
    *(
        b"http://x.test/a.jpg",
        b"https://x.test:443/b?c=d#e",
        b"//cdn.test/a.png",
        b"http://127.0.0.1/a",
    ),
    *(
        b"http://0x7f.1/",
        b"http://2130706433/",
        b"http://[::ffff:127.0.0.1]/",
        b"http://localhost./",
    ),
    *(b"http://good.com@127.0.0.1/", b"http://[fe80::1]/", "http://１２７。0.0.1/".encode()),
    *(b"file:///etc/passwd", b"data:image/png;base64,AA", b"http://169.254.169.254/latest"),
    *(
        b"http://[2002:7f00:1::]/",
        b"http://[64:ff9b::7f00:1]/",
        b"http://inside.test/",
        b"http://10.1/",
    ),
]
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n\xff\xd8\xff\xe0abcdefgh",
    b"HTTP/1.1 302 Found\r\nLocation: http://inside.test/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1/\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGIF8\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"HTTP/1.1 429 Slow\r\nRetry-After: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n<!doctype html>",
]
ADDRESSES = [
    *(
        "93.184.215.14",
        "1.1.1.1",
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
    ),
    *("2606:4700::1111", "::1", "fe80::1%lo", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a00:1"),
    *("fd00::1", "224.0.0.1", "255.255.255.255", "64:ff9b::808:808", "x"),
]
ADDRESS = st.one_of(
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES[:2]),
    st.integers(0, 2**32 - 1).map(lambda number: str(ipaddress.IPv4Address(number))),
    st.integers(0, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number))),
)
FETCH = FetchConfig(retries=1, delay=0.0, timeout=1.0, deadline=2.0, max_wait=0.001, max_bytes=4096)
PRIVATE: list[str] = []
"""Private addresses that were connected to."""


class _System:
    """A name server and servers that answer as they are given to, one after the other."""

    def __init__(self, found: list[list[str]], answers: list[bytes]) -> None:
        self.found, self.answers = list(found), list(answers)

    def resolve(self, host: str, port: int) -> Sequence[str]:
        try:  # an address in numbers is itself, as the system's resolver answers; it asks no server
            return [
                str(one[4][0])
                for one in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)
            ]
        except (OSError, UnicodeError):
            return self.found.pop(0) if len(self.found) > 1 else self.found[0]

    def dial(self, address: str, port: int, timeout: float) -> socket.socket:
        if not _is_public(address):
            PRIVATE.append(address)
        here, there = socket.socketpair()
        with there:
            there.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            there.shutdown(socket.SHUT_WR)
            there.setblocking(False)
        here.settimeout(timeout)
        return here


def _is_public(address: str) -> bool:
    """By another reckoning than the guard's: the library's, of the address and all that are inside it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    inside: list[Any] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        inside += [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inside = [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    return all(one is None or (one.is_global and not one.is_multicast) for one in inside)


def _address(given: bytes, folder: Path) -> object:
    text = given.decode("utf8", "surrogateescape")
    try:
        address = parse_address(text)
    except RefusedError as error:
        return str(error)
    assert address.url.isascii()
    assert not set(address.url) & set(" \r\n\0\\")
    assert parse_address(address.url) == address
    return address


def _download(given: tuple[bytes, list[list[str]], list[bytes]], folder: Path) -> object:
    url, found, answers = given
    system = _System(found, answers)
    downloader = Downloader(FETCH, system.resolve, system.dial, _Plain())  # pyright: ignore
    downloader.hosts.lookup_seconds = 0.0
    downloader.first_pause = 0.0
    outcome = downloader.download(url.decode("utf8", "surrogateescape"), folder / "x")
    assert bool(outcome.reason) != bool(outcome.suffix)
    return outcome


class _Plain:
    """Stands for TLS, whose random numbers no answer that was written before could know."""

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> socket.socket:
        return plain


PARSERS = {
    "web addresses": Parser(edited(URLS), _address),
    "downloads": Parser(
        st.tuples(
            st.one_of(st.sampled_from(URLS[:2]), edited(URLS, 2)),
            st.lists(st.lists(ADDRESS, min_size=1, max_size=3), min_size=1, max_size=4),
            st.lists(
                st.one_of(edited(ANSWERS, 3), st.sampled_from(ANSWERS)), min_size=1, max_size=4
            ),
        ),
        _download,
        again=5,
    ),
}
