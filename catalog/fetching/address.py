"""Decides which web addresses may be fetched: their form, and the network addresses of their host."""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

PORTS = {"http": 80, "https": 443}
"""Schemes that are fetched, and their ports."""
LONGEST = 8192
"""Letters of an address; servers refuse longer ones."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
HOST_NAME = re.compile(
    r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*"
)
SAFE = "/%:@!$&'()*+,;=~-._?"
"""Letters of paths and queries that stay as they are; all others are written as %XX."""
IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""Host and port → its network addresses as text; OSError where there are none."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Holds IPv4 addresses in its last 32 bits (RFC 6052)."""
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
NEVER = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("168.63.129.16/32", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16"),
    )
]
"""Networks that no picture of a shop lies in: private, shared, local, reserved, for documentation, multicast,
and the address at which a cloud answers its own machines. What is not global unicast IPv6 is refused
before."""


class RefusedError(Exception):
    """An address that is never fetched; the message is the reason in a few words."""


@dataclass(frozen=True)
class Address:
    """A web address in normal form."""

    url: str
    scheme: str
    host: str
    """Lower case, in ASCII, without the final dot; an IPv6 address without brackets."""
    port: int
    target: str
    """Path and query, as a request names them."""

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.scheme] else f"{name}:{self.port}"


def parse_address(text: str, ports: Sequence[int] = (80, 443), base: str = "") -> Address:
    """The parts of a web address, relative to `base` if that is given; RefusedError with the reason."""
    text = text.strip()
    if text.startswith("//") and not base:
        text = f"https:{text}"
    if len(text) > LONGEST:
        scheme = "a picture written into the address" if text[:5].lower() == "data:" else "too long"
        raise RefusedError(scheme)
    if CONTROL.search(text):
        raise RefusedError("a control character in the address")
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise RefusedError("no valid address") from error
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        if scheme == "data":
            raise RefusedError("a picture written into the address")
        raise RefusedError("neither http nor https")
    if "@" in parts.netloc:
        raise RefusedError("a user name or password in the address")
    host = _host(host, bracketed=parts.netloc.startswith("["))
    port = PORTS[scheme] if port is None else port
    if port not in ports:
        raise RefusedError(f"port {port}, which is not among fetch.ports")
    target = quote(parts.path or "/", safe=SAFE.replace("?", ""), errors="replace")
    if parts.query:
        target += "?" + quote(parts.query, safe=SAFE, errors="replace")
    named = Address("", scheme, host, port, target)
    return Address(f"{scheme}://{named.host_header}{target}", scheme, host, port, target)


def _host(host: str, bracketed: bool) -> str:
    """The host in ASCII; RefusedError where it is neither a name nor an address."""
    if bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise RefusedError("no valid host") from error
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise RefusedError("no valid host") from error
    name = name.lower().removesuffix(".")
    if len(name) > 253 or not HOST_NAME.fullmatch(name):
        raise RefusedError("no valid host")
    return name


def is_public(address: str) -> bool:
    """Whether a network address is one of the public internet, and holds none that is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # also one with a zone, which only local addresses have
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id:
            return False
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in GLOBAL_UNICAST or not all(map(is_public, _embedded(ip))):
            return False
    if ip.is_private or ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local:
        return False
    return not ip.is_unspecified and not any(
        ip in net for net in NEVER if net.version == ip.version
    )


def _embedded(ip: ipaddress.IPv6Address) -> list[str]:
    """IPv4 addresses inside a global unicast one: 6to4, and interfaces of ISATAP."""
    found = [ip.sixtofour] if ip.sixtofour else []
    if (int(ip) >> 32) & 0xFCFFFFFF == 0x5EFE:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [str(one) for one in found]


def resolve(host: str, port: int) -> list[str]:
    """All network addresses of a host, as the system answers; OSError where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def public_addresses(address: Address, resolver: Resolver = resolve) -> list[str]:
    """The network addresses of a host; RefusedError where any of them is not public."""
    found = list(resolver(address.host, address.port))
    if not found:
        raise OSError("the host has no network address")
    if not all(map(is_public, found)):
        raise RefusedError("a host inside a private or reserved network")
    return found
