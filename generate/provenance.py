"""Who made a picture, with what, and that nobody changed it since: a signature inside the file.

The signature (Ed25519) covers every byte of the file but its own. It stands in a chunk of its own in a
PNG, in a segment of its own in a JPEG, beside the public key; both formats let readers skip what they do
not know. Who signs has a key in a file of their own (`VITRINE_KEY`), made at first use.

`signed_png` and `signed_jpeg` are the only functions that make a file of a generated picture
(`tests/generate/test_one_way_out.py` walks the source for others).
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from catalog.errors import VitrineError

KEY_VARIABLE = "VITRINE_KEY"
FIELD = "vitrine"
"""Of a PNG's text or a JPEG's comment: what is told of the picture, as JSON."""
CHUNK = b"vtSG"
"""Ancillary, private, not to be copied by who changes the picture (PNG, section 4.7.2)."""
SEGMENT, NAME = 0xEB, b"vitrine\0"
"""APP11 of a JPEG, as C2PA has it, and how ours begins."""
SIGNED = 64
"""Bytes of a signature."""
HELD = 32 + SIGNED
"""Bytes that a file holds of it: the public key, then the signature."""
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC's words for how a picture came about."""


@dataclass(frozen=True)
class Verdict:
    signed: bool
    """Whether the file holds a signature."""
    untouched: bool
    """Whether every byte is as it was signed."""
    signer: str
    """Fingerprint of the key that signed; "" without."""
    about: dict[str, Any]
    """What the file says of itself; believe it only if `untouched` and the signer is one you know."""


def key_file() -> Path:
    told = os.environ.get(KEY_VARIABLE)
    return Path(told) if told else Path.home() / ".config" / "vitrine" / "key.pem"


@cache
def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = _new_key(path)
    except OSError as error:
        raise VitrineError(
            f"the key {path} cannot be read ({error.strerror}); {KEY_VARIABLE} names another."
        ) from error
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except ValueError as error:
        raise VitrineError(
            f"{path} holds no private key; give one as PEM, or a path where none is yet."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise VitrineError(f"{path} holds a key of another kind; pictures are signed by Ed25519.")
    return key


def _new_key(path: Path) -> bytes:
    """Whoever comes first makes it; nobody else may read it."""
    content = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            partial.unlink()
    except OSError as error:
        raise VitrineError(
            f"no key can be kept at {path} ({error.strerror}); let {KEY_VARIABLE} name a file that can "
            "be written."
        ) from error
    return content


def fingerprint(key: Ed25519PublicKey | None = None) -> str:
    """Of a public key, one's own by default: 16 hexadecimal digits."""
    key = key or _read_key(key_file()).public_key()
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def signed_png(picture: Image.Image, about: Mapping[str, Any]) -> bytes:
    """A PNG that says `about` (JSON) of itself and is signed."""
    info = PngInfo()
    info.add_itxt(FIELD, json.dumps(about, ensure_ascii=False))
    info.add_itxt("DigitalSourceType", str(about.get("DigitalSourceType", "")))
    buffer = BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    content = buffer.getvalue()
    end = content.rindex(b"IEND") - 4
    key = _read_key(key_file())
    held = key.public_key().public_bytes_raw() + bytes(SIGNED)
    before = content[:end] + struct.pack(">I", HELD) + CHUNK
    blank = before + held + bytes(4) + content[end:]
    held = held[:32] + key.sign(blank)
    check = struct.pack(">I", zlib.crc32(CHUNK + held))
    return before + held + check + content[end:]


def signed_jpeg(picture: Image.Image, about: Mapping[str, Any], quality: int = 92) -> bytes:
    """A JPEG that says `about` (JSON) of itself and is signed."""
    buffer = BytesIO()
    told = json.dumps({FIELD: about}, ensure_ascii=False).encode()
    picture.convert("RGB").save(buffer, format="JPEG", quality=quality, comment=told)
    content = buffer.getvalue()
    key = _read_key(key_file())
    held = key.public_key().public_bytes_raw() + bytes(SIGNED)
    before = content[:2] + bytes((0xFF, SEGMENT)) + struct.pack(">H", 2 + len(NAME) + HELD) + NAME
    signature = key.sign(before + held + content[2:])
    return before + held[:32] + signature + content[2:]


def verify(path: str | Path) -> Verdict:
    """What the signature in a PNG or JPEG says; VitrineError for a file that cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise VitrineError(f"{path} cannot be read ({error.strerror}).") from error
    place = _signature_place(content)
    about = _told(content)
    if place is None:
        return Verdict(False, False, "", about)
    begin, zeroed = place  # of the public key; of bytes after it that were 0 when it was signed
    held = content[begin : begin + HELD]
    blank = content[: begin + 32] + bytes(zeroed) + content[begin + 32 + zeroed :]
    check = content[begin + HELD : begin + 32 + zeroed]
    key = Ed25519PublicKey.from_public_bytes(held[:32])
    try:
        key.verify(held[32:], blank)
        untouched = not check or check == struct.pack(">I", zlib.crc32(CHUNK + held))
    except InvalidSignature:
        untouched = False
    return Verdict(True, untouched, fingerprint(key), about)


def _signature_place(content: bytes) -> tuple[int, int] | None:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        begin = content.rfind(struct.pack(">I", HELD) + CHUNK)
        whole = begin >= 0 and len(content) >= begin + 8 + HELD + 4
        return (begin + 8, SIGNED + 4) if whole else None
    head = bytes((0xFF, 0xD8, 0xFF, SEGMENT)) + struct.pack(">H", 2 + len(NAME) + HELD) + NAME
    if content.startswith(head) and len(content) >= len(head) + HELD:
        return len(head), SIGNED
    return None


def _told(content: bytes) -> dict[str, Any]:
    """What a picture says of itself; nothing where it says nothing that can be read."""
    try:
        with Image.open(BytesIO(content)) as picture:
            if picture.format == "PNG":
                picture.load()
                told = json.loads(picture.info.get(FIELD, "{}"))
            else:
                told = json.loads(picture.info.get("comment", b"{}")).get(FIELD, {})
    except Exception:  # a spoilt file answers with nearly every kind of error
        return {}
    return told if isinstance(told, dict) else {}
