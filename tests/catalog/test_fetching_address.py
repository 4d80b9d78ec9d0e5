"""No form of an address, redirect or answer of a name server leads into a private network."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.fetching.address import RefusedError, is_public, parse_address, resolve
from catalog.fetching.connection import dial

from .fetching_kit import PUBLIC, Web, picture, redirect, send

PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3"),
    *("224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1"),
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "168.63.129.16", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2001:db8::1"),
    *("2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2600:1f18::5efe:10.0.0.1", "100::1", "3fff::1"),
    *("2600:1f18::200:5efe:7f00:1", "not an address", ""),
]
ODD = [
    *("http://0x7f.1/a", "http://2130706433/a", "http://0177.0.0.1/a", "http://127.1/a"),
    *("http://[::ffff:127.0.0.1]/a", "http://[::1]/a", "http://localhost/a", "http://localhost./a"),
    *("http://127.0.0.1./a", "http://0/a", "http://１２７.0.0.1/a", "http://127。0。0。1/a"),
    *("http://127．0．0．1/a", "http://ⓛocalhost/a", "http://[fe80::1%25lo]/a", "http://[::]/a"),
    *(
        "http://good.com@127.0.0.1/a",
        "http://127.0.0.1\\@good.com/a",
        "http://good.com:80@10.0.0.1",
    ),
    *("http://127.0.0.1#@good.com/", "http://127.0.0.1?@good.com/", "http:///127.0.0.1/a"),
    *("http://%31%32%37.0.0.1/a", "http://127.0.0.1%00.good.com/", "http://[64:ff9b::7f00:1]/a"),
    *("//127.0.0.1/a.jpg", "http://169.254.169.254/latest", "http://0x7f000001/", "http://[::1]./"),
    *("http://①②⑦.0.0.1/", "HTTP://LOCALHOST/", "http://metadata.google.internal@0/"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_address_of_a_private_or_reserved_network_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "2002:808:808::1", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_what_is_public_is_global_by_the_library_too(number: int) -> None:
    ip = ipaddress.IPv4Address(number)
    assert not is_public(str(ip)) or (ip.is_global and not ip.is_multicast)
    for inside in (
        number,
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
    ):
        if not is_public(str(ip)):
            assert not is_public(str(ipaddress.IPv6Address(inside)))


@pytest.mark.parametrize("url", ODD)
def test_odd_spellings_never_reach_a_private_address(url: str, web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = send(picture())
    downloader = web.downloader(retries=0)
    downloader.resolver = resolve
    outcome = downloader.download(url, tmp_path / "x")
    assert outcome.reason
    assert web.dialled == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://x.test/a.jpg", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("gopher://x.test/", "neither http nor https"),
        ("data:image/png;base64,AAAA", "a picture written into the address"),
        ("data:image/png;base64," + "A" * 9000, "a picture written into the address"),
        ("http://x.test:22/", "port 22"),
        ("http://x.test:99999/", "no valid address"),
        ("http://user:secret@x.test/", "a user name or password"),
        ("http://x.test/a\r\nHost: y", "a control character"),
        ("http://x y/", "no valid host"),
        ("http://" + "a" * 9000, "too long"),
        ("http://", "no valid host"),
        ("http://[::1", "no valid address"),
    ],
)
def test_other_forms_are_refused_by_name(url: str, reason: str, web: Web, tmp_path: Path) -> None:
    assert reason in web.reason(tmp_path, url)
    assert web.dialled == []


def test_addresses_are_written_as_servers_read_them() -> None:
    assert parse_address(" //CDN.test/ä b.jpg?v=1 2#x ").url == (
        "https://cdn.test/%C3%A4%20b.jpg?v=1%202"
    )
    assert parse_address("http://x.test:80").url == "http://x.test/"
    assert parse_address("http://müller.test/a%20b").url == "http://xn--mller-kva.test/a%20b"
    assert parse_address("b.jpg", base="https://x.test/c/a.jpg").url == "https://x.test/c/b.jpg"


@pytest.mark.parametrize("place", ["http://127.0.0.1/b", "http://inside.test/b", "//10.0.0.1/b"])
def test_a_redirect_to_a_private_address_is_refused(place: str, web: Web, tmp_path: Path) -> None:
    web.names["inside.test"] = [["192.168.0.7"]]
    web.pages |= {"/a": redirect(place), "/b": send(picture())}
    assert "private" in web.reason(tmp_path, "http://x.test/a")
    assert web.dialled == [(PUBLIC, 80)]
    assert web.hits["/b"] == 0


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "http://u:p@x.test/b", "http://x.test:22/b"]
)
def test_redirects_are_checked_like_addresses(place: str, web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = redirect(place)
    assert web.reason(tmp_path, "http://x.test/a")
    assert len(web.dialled) == 1


def test_five_redirects_are_followed_and_six_are_not(web: Web, tmp_path: Path) -> None:
    for number in range(6):
        web.pages[f"/{number}"] = redirect(
            f"/{number + 1}", status=(301, 302, 303, 307, 308, 302)[number]
        )
    web.pages["/6"] = send(picture())
    assert web.reason(tmp_path, "http://x.test/1") == ""
    assert web.reason(tmp_path, "http://x.test/0") == "more than 5 redirects"


def test_a_host_with_one_private_address_among_public_ones_is_refused(
    web: Web, tmp_path: Path
) -> None:
    web.names["x.test"] = [[PUBLIC, "10.0.0.1"]]
    assert "private" in web.reason(tmp_path, "http://x.test/a")
    assert web.dialled == []


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_name_that_is_answered_otherwise_later_leads_nowhere_else(
    seconds: float, web: Web, tmp_path: Path
) -> None:
    web.names["x.test"] = [[PUBLIC], ["127.0.0.1"]]
    web.pages |= {"/a": send(picture()), "/b": redirect("/a")}
    downloader = web.downloader()
    downloader.hosts.lookup_seconds = seconds
    first = downloader.download("http://x.test/a", tmp_path / "a")
    second = downloader.download("http://x.test/b", tmp_path / "b")
    assert first.suffix == "jpg"
    assert second.reason == ("" if seconds else "a host inside a private or reserved network")
    assert {address for address, _ in web.dialled} == {PUBLIC}


def test_the_connection_is_made_to_the_address_in_numbers(web: Web) -> None:
    host, port = "127.0.0.1", web.server.server_port
    with dial(host, port, 2.0) as connection:
        assert connection.getpeername() == (host, port)
    with pytest.raises(OSError):  # noqa: PT011
        dial("x.invalid", port, 0.5)


def test_no_reason_names_a_password() -> None:
    with pytest.raises(RefusedError) as raised:
        parse_address("http://user:secret@x.test/")
    assert "secret" not in str(raised.value)
