"""Pseudonyms of users in generated output (HMAC of the user id), and the keys behind them.

A pseudonym is the same for one user under one key, and cannot be traced to the user without the key. The
keys are in a file (`VITRINE_USER_KEY`), created at first use: one on each line, 64 hexadecimal digits, the
one in use first. Retired keys stay below it (key rotation), so that `vitrine forget` finds what was
generated with them. They are independent of the key that signs images: either may change alone.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from catalog.atomic_write import publish
from catalog.errors import VitrineError

KEY_VARIABLE = "VITRINE_USER_KEY"
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class UserKey:
    secret: bytes

    @property
    def fingerprint(self) -> str:
        """Identifier of the key, 16 hexadecimal digits, which does not reveal it."""
        return hashlib.sha256(b"vitrine user key" + self.secret).hexdigest()[:16]

    def pseudonym(self, user: str) -> str:
        return f"p-{hmac.new(self.secret, user.encode(), 'sha256').hexdigest()[:20]}"


def key_file() -> Path:
    path = os.environ.get(KEY_VARIABLE)
    return Path(path) if path else Path.home() / ".config" / "vitrine" / "users.key"


def user_key() -> UserKey:
    """Returns the key in use; creates it where there is none yet."""
    return _ring(key_file())[0]


def pseudonymize(user: str | None) -> str:
    """The user's pseudonym under the key in use; "" for None."""
    return "" if user is None else user_key().pseudonym(user)


def known_keys(files: Iterable[str | Path] = ()) -> list[UserKey]:
    """The key in use, those retired from it, and the keys in other files.

    A file may also be the PEM of a signing key, from which earlier versions derived the user key.
    """
    keys = list(_ring(key_file()))
    for file in map(Path, files):
        keys += _read_keys(file)
    return list(dict.fromkeys(keys))


def rotate_user_key() -> UserKey:
    """Key rotation: writes a new key above the existing ones and returns it; the old ones are retired."""
    file, new = key_file(), secrets.token_bytes(32)
    keys = [new, *(key.secret for key in _ring(file))]
    try:
        partial = _write(file, keys)
        publish(partial, file)
    except OSError as error:
        raise _cannot_keep(file, error) from error
    _ring.cache_clear()
    return UserKey(new)


@cache
def _ring(file: Path) -> tuple[UserKey, ...]:
    try:
        if not file.exists():
            partial = _write(file, [secrets.token_bytes(32)])
            try:
                os.link(partial, file)
            except FileExistsError:
                pass  # another process created the file first; its key is used
            finally:
                partial.unlink()
    except OSError as error:
        raise _cannot_keep(file, error) from error
    return tuple(_read_keys(file))


def _read_keys(file: Path) -> list[UserKey]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise VitrineError(
            f"the user key {file} cannot be read ({error.strerror}); give a file that can be, or let "
            f"{KEY_VARIABLE} name one."
        ) from error
    if content.startswith(b"-----BEGIN"):
        try:
            key = serialization.load_pem_private_key(content, password=None)
        except (ValueError, TypeError):
            key = None
        if isinstance(key, Ed25519PrivateKey):
            secret = hmac.digest(key.private_bytes_raw(), b"vitrine people", "sha256")
            return [UserKey(secret)]
    lines = content.decode("utf-8", "replace").split()
    if not lines or not all(map(_KEY.fullmatch, lines)):
        raise VitrineError(
            f"{file} holds no user keys (64 hexadecimal digits a line); give the file that "
            f"{KEY_VARIABLE} named when they were in use."
        )
    return [UserKey(bytes.fromhex(line)) for line in lines]


def _write(file: Path, keys: Iterable[bytes]) -> Path:
    """Writes keys to a file beside `file` that only its owner may read; returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write("".join(f"{key.hex()}\n" for key in keys))
        opened.flush()
        os.fsync(opened.fileno())
    return partial


def _cannot_keep(file: Path, error: OSError) -> VitrineError:
    return VitrineError(
        f"no user key can be kept at {file} ({error.strerror}); let {KEY_VARIABLE} name a file that can "
        "be written."
    )
