"""Checks texts and reviews for personal data: e-mail, phone, payment and IP addresses."""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from catalog.doctor.arrow_compute import pc
from catalog.doctor.context import Context
from catalog.doctor.finding import Finding

E_MAIL = r"(?i)[a-z0-9][a-z0-9._%+-]*@(?:[a-z0-9-]+\.)+[a-z]{2,}"
PHONE = (
    r"(?:^|[^\w+])(?:\+[1-9]\d{0,2}[ ./-]?(?:\(0?\)[ ./-]?)?(?:\(?\d{1,5}\)?[ ./-]?){1,5}\d{2,}"
    r"|\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?:[^\w-]|$)"
)
IBAN = r"\b[A-Z]{2}\d{2} ?(?:[A-Z0-9]{4} ?){2,7}[A-Z0-9]{0,4}\b"
CARD = r"(?:^|[^\d.,])(?:\d{4}[ -]?){3}\d{1,4}(?:[^\d.,]|[.,]\D|[.,]?$)|\b3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b"
ADDRESS = r"(?:^|[^\w.])(?:\d{1,3}\.){3}\d{1,3}(?:$|[^\w.]|\.(?:\W|$))"
VERSION = re.compile(r"(?i)(?:v|ver|version|release|firmware)\.?\s*$")


def is_iban(text: str) -> bool:
    """Whether the check digits of an IBAN (ISO 13616) are right."""
    plain = re.sub(r"\s", "", text)
    if not 15 <= len(plain) <= 34 or not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether a number has the beginning, the length and the check digit (Luhn) of a payment card's."""
    digits = re.sub(r"\D", "", text)
    known = r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}"
    if not re.fullmatch(known, digits):
        return False
    doubled = [int(d) * 2 if place % 2 else int(d) for place, d in enumerate(digits[::-1])]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def _has_payment_number(text: str) -> bool:
    for found in re.finditer(IBAN, text):
        groups = found[0].split()  # the last ones may be words that follow
        if any(is_iban("".join(groups[:end])) for end in range(len(groups), 0, -1)):
            return True
    return any(is_card(found[0]) for found in re.finditer(CARD, text))


def _has_phone_number(text: str) -> bool:
    counts = [len(re.sub(r"\D", "", found[0])) for found in re.finditer(PHONE, text)]
    return any(8 <= count <= 15 for count in counts)


def _has_ip_address(text: str) -> bool:
    for found in re.finditer(ADDRESS, text):
        parts = [int(part) for part in re.findall(r"\d+", found[0])]
        before = text[: found.start() + 1]
        if (
            0 < parts[0] < 256
            and max(parts) < 256
            and max(parts) > 9
            and not VERSION.search(before)
        ):
            return True
    return False


KINDS_OF_DATA: dict[str, tuple[str, str, Callable[[str], bool] | None]] = {
    "e-mail-addresses": ("an e-mail address", E_MAIL, None),
    "phone-numbers": ("a phone number", PHONE, _has_phone_number),
    "payment-numbers": ("an IBAN or a card number", f"{IBAN}|{CARD}", _has_payment_number),
    "ip-addresses": ("an IP address", ADDRESS, _has_ip_address),
}
"""Kind → what it is, the pattern (RE2) of candidates, and the test of these."""


def personal_data(context: Context) -> Iterable[Finding]:
    """Hints of personal data in items' texts, and in reviews."""
    sources = {
        "items": ("texts hold", context.text_batches),
        "interactions": ("reviews hold", context.review_batches),
    }
    for unit, (words, batches) in sources.items():
        rows: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS_OF_DATA}
        for start, texts in batches():
            for kind, (_, pattern, is_one) in KINDS_OF_DATA.items():
                rows[kind].append(start + _matching(texts, pattern, is_one))
        for kind, (name, _, _) in KINDS_OF_DATA.items():
            found = np.concatenate([np.empty(0, np.int64), *rows[kind]])
            sentence = f"{{n}} {words} {name}"
            yield from context.found(kind, found, sentence, unit=unit)  # type: ignore[arg-type]


def _matching(texts: pa.Array, pattern: str, is_one: Callable[[str], bool] | None) -> np.ndarray:
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    rows = np.flatnonzero(found.to_numpy(zero_copy_only=False))
    if is_one is None:
        return rows
    chosen = texts.take(pa.array(rows)).to_pylist()
    return rows[np.array([is_one(text) for text in chosen], bool)]


CHECKS = (personal_data,)
