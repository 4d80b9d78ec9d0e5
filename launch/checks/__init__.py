"""The checks of `vitrine doctor`; each yields results, and knows nothing of the others."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CheckResult:
    """One line that `vitrine doctor` prints."""

    level: Literal["ok", "warn", "fail"]
    name: str
    message: str
    remedy: str = ""
