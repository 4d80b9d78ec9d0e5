"""What `vitrine doctor` looks at; each check yields findings, and knows nothing of the others."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    level: Literal["ok", "warn", "fail"]
    what: str
    found: str
    remedy: str = ""
