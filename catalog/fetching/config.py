"""Settings of fetching pictures by their web addresses; imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated

from catalog.config import Bounds, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Port = Annotated[int, Bounds(1, 65535)]


@dataclass(frozen=True)
class FetchConfig:
    concurrency: Annotated[int, Bounds(1, 256)] = 32
    """Pictures that are fetched at the same time."""
    per_host: PositiveInt = 4
    """Requests to one host at the same time."""
    delay: NonNegativeFloat = 0.02
    """Seconds from the start of one request to a host to the start of the next."""
    timeout: PositiveFloat = 15.0
    """Seconds without an answer after which an attempt fails."""
    deadline: PositiveFloat = 60.0
    """Seconds that an attempt may take in all, redirects included, however slowly bytes come."""
    retries: NonNegativeInt = 3
    """Further attempts after a timeout, a broken connection, or a status of 429 or 5xx."""
    max_wait: PositiveFloat = 60.0
    """Longest pause in seconds before a further attempt, whatever Retry-After says."""
    max_bytes: PositiveInt = 20_000_000
    """Larger files are refused, unpacked where the server packs them."""
    max_pixels: Annotated[int, Bounds(1, 50_000_000)] = 50_000_000
    """Pictures with more pixels (width × height) are refused from their header."""
    ports: tuple[Port, ...] = (80, 443)
    """Ports that addresses may name."""
