"""A picture is what its bytes are, however a server lies, drips or breaks off."""

import gzip
import os
import socket
import ssl
import struct
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from catalog.fetching.download import Downloader, retry_after

from .fetching_kit import PUBLIC, Answer, Web, picture, send

URL = "http://x.test/a"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_the_bytes_decide_the_suffix(form: str, web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = send(picture(5, form), Content_Type="text/html")
    outcome = web.downloader().download(URL, tmp_path / "x")
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(form, form.lower())
    assert (outcome.suffix, outcome.reason) == (suffix, "")
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{suffix}"]
    assert (tmp_path / f"x.{suffix}").read_bytes() == picture(5, form)


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header names a size that its few bytes do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(b"<!DOCTYPE html><p>gone", Content_Type="image/jpeg"), "a page of HTML"),
        (send(b"\n <html>", Content_Type="image/jpeg"), "a page of HTML"),
        (send(b"<svg xmlns='x'/>", Content_Type="image/svg+xml"), "SVG"),
        (send(b"<?xml version='1.0'?><!-- x --><svg/>"), "SVG"),
        (send(b"%PDF-1.7 ........."), "PDF"),
        (send(b""), "an empty file"),
        (send(b"\0" * 100), "no known picture"),
        (send(b"\xff\xd8\xff" + b"\0" * 100), "a damaged picture"),
        (send(huge_png(60_000, 60_000)), "more pixels"),
        (send(b"", 404), "HTTP status 404"),
        (send(b"", 403), "HTTP status 403"),
        (send(b"", 204, Content_Length=""), "HTTP status 204"),
        (send(picture(), Content_Encoding="br"), "packed"),
        (send(b"no gzip at all...", Content_Encoding="gzip"), "damaged packing"),
        (
            send(gzip.compress(b"\xff\xd8\xff" + bytes(30_000_000)), Content_Encoding="gzip"),
            "more bytes",
        ),
        (send(picture() + bytes(21_000_000)), "more bytes"),
        (send(picture() + bytes(21_000_000), Content_Length=""), "more bytes"),
    ],
    ids=range(17),
)
def test_what_is_no_fit_picture_is_refused_by_name_at_once(
    answer: Answer, reason: str, web: Web, tmp_path: Path
) -> None:
    web.pages["/a"] = answer
    outcome = web.downloader(retries=3).download(URL, tmp_path / "x")
    assert reason in outcome.reason
    assert not outcome.is_transient
    assert web.hits["/a"] == 1
    assert list(tmp_path.iterdir()) == []


def test_packed_pictures_are_unpacked(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = send(gzip.compress(picture(7)), Content_Encoding="gzip")
    assert web.reason(tmp_path, URL) == ""
    assert (tmp_path / "x.jpg").read_bytes() == picture(7)
    assert web.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "answer",
    [
        send(picture(), Content_Length="5000"),
        send(gzip.compress(picture())[:-9], Content_Encoding="gzip"),
        send(b"\r\nnot a chunk", Transfer_Encoding="chunked", Content_Length=""),
    ],
    ids=range(3),
)
def test_a_file_that_ends_early_is_never_kept(answer: Answer, web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = answer
    outcome = web.downloader(retries=2).download(URL, tmp_path / "x")
    assert outcome.is_transient
    assert web.hits["/a"] == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_server_that_drips_is_left_at_the_deadline(where: str, web: Web, tmp_path: Path) -> None:
    def drip(handler) -> None:
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        for byte in picture() if where == "body" else b"HTTP/1.0 200 OK\r\nX: " + b"x" * 999:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)

    web.pages["/a"] = drip
    started = time.monotonic()
    outcome = web.downloader(retries=0, deadline=0.3, timeout=5.0).download(URL, tmp_path / "x")
    assert time.monotonic() - started < 2
    assert outcome.reason == "no answer in time"
    assert outcome.is_transient
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_silent_is_left_after_the_timeout(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = lambda handler: time.sleep(1.0)
    started = time.monotonic()
    assert web.reason(tmp_path, URL, retries=0, timeout=0.2) == "no answer in time"
    assert time.monotonic() - started < 0.9


def in_turn(*answers: Answer) -> Answer:
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def test_a_pause_that_the_server_asks_for_is_kept(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = in_turn(send(b"", 429, Retry_After="1"), send(picture()))
    assert web.reason(tmp_path, URL) == ""
    assert web.starts[1] - web.starts[0] >= 0.99


def test_a_pause_is_bounded(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = in_turn(send(b"", 503, Retry_After="99999"), send(picture()))
    started = time.monotonic()
    assert web.reason(tmp_path, URL, max_wait=0.2) == ""
    assert time.monotonic() - started < 2


def test_pauses_between_attempts_grow(web: Web, tmp_path: Path) -> None:
    web.pages["/a"] = send(b"", 500)
    downloader = web.downloader(retries=3)
    downloader.first_pause = 0.1
    assert downloader.download(URL, tmp_path / "x").is_transient
    pauses = [later - sooner for sooner, later in zip(web.starts, web.starts[1:], strict=False)]
    assert len(pauses) == 3
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after(" 12 ") == 12
    later = datetime.now(UTC) + timedelta(seconds=100)
    assert 95 < retry_after(format_datetime(later, usegmt=True)) <= 100
    assert [retry_after(value) for value in ("", "soon", "-5", "²", "Mon, 99 Foo")] == [0] * 5


def test_unknown_hosts_and_closed_ports_are_named(web: Web, tmp_path: Path) -> None:
    web.names["gone.test"] = [[]]
    assert web.reason(tmp_path, "http://gone.test/a") == "an unknown host"
    downloader = web.downloader(retries=0)

    def refused(address: str, port: int, timeout: float) -> socket.socket:
        raise ConnectionRefusedError

    downloader.dial = refused
    outcome = downloader.download(URL, tmp_path / "x")
    assert outcome.reason == "a broken connection"
    assert outcome.is_transient


def test_the_next_address_of_a_host_is_tried(web: Web, tmp_path: Path) -> None:
    web.names["x.test"] = [["1.1.1.1", PUBLIC]]
    web.pages["/a"] = send(picture())
    downloader = web.downloader(retries=0)

    def first_is_dead(address: str, port: int, timeout: float) -> socket.socket:
        if address == "1.1.1.1":
            raise ConnectionRefusedError
        return web.dial(address, port, timeout)

    downloader.dial = first_is_dead
    assert downloader.download(URL, tmp_path / "x").reason == ""


def test_proxies_of_the_environment_are_not_used(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    web.pages["/a"] = send(picture())
    assert web.reason(tmp_path, URL) == ""
    assert web.dialled == [(PUBLIC, 80)]
    assert web.hosts == ["x.test"]


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for `name`, and the certificate that a client may trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "certificate.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


@pytest.fixture
def secure(web: Web, tmp_path: Path) -> Downloader:
    context, pem = certificate(tmp_path, "x.test")
    web.names_asked = []  # pyright: ignore[reportAttributeAccessIssue]
    context.sni_callback = lambda _, name, __: web.names_asked.append(name)  # pyright: ignore
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    web.pages["/a"] = send(picture())
    downloader = web.downloader()
    downloader.tls = ssl.create_default_context(cafile=str(pem))
    return downloader


def test_certificates_are_verified_for_the_name(
    secure: Downloader, web: Web, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert secure.download("https://x.test/a", tmp_path / "out" / "x").reason == ""
    assert web.dialled == [(PUBLIC, 443)]
    assert web.names_asked == ["x.test"]  # pyright: ignore
    wrong = secure.download("https://y.test/a", tmp_path / "out" / "y")
    assert wrong.reason == "a certificate that is not valid"
    assert not wrong.is_transient
    untrusted = web.downloader().download("https://x.test/a", tmp_path / "out" / "z")
    assert untrusted.reason == "a certificate that is not valid"
    assert os.listdir(tmp_path / "out") == ["x.jpg"]
