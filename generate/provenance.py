"""Provenance of generated images: metadata and a signature inside the file, and their verification.

The signature (Ed25519) covers every byte of the file but its own. It is stored with the public key in a
private chunk of a PNG, or in an application segment of a JPEG, which other readers skip. The signing key
is in a file (`VITRINE_KEY`) that is created at first use.

`signed_png` and `signed_jpeg` are the only functions that encode a generated image as a file
(`tests/generate/test_one_way_out.py` searches the source for others).
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
METADATA_FIELD = "vitrine"
"""Name of a PNG's text chunk, and key in a JPEG's comment, with the image's metadata as JSON."""
CHUNK = b"vtSG"
"""PNG chunk of the signature: ancillary, private, not safe to copy (PNG, section 4.7.2)."""
SIGNATURE_BYTES = 64
"""Length of a signature."""
BLOCK_BYTES = 32 + SIGNATURE_BYTES
"""Length of the signature block: the public key, then the signature."""
SEGMENT_PREFIX = b"vitrine\0"
SEGMENT_HEAD = (
    b"\xff\xeb" + struct.pack(">H", 2 + len(SEGMENT_PREFIX) + BLOCK_BYTES) + SEGMENT_PREFIX
)
"""JPEG segment of the signature: APP11, as C2PA uses it, its length, and its first bytes."""
IPTC_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""IPTC vocabulary of digital source types."""


@dataclass(frozen=True)
class SignatureCheck:
    """Provenance of an image file: who signed it, and whether it was changed since."""

    is_signed: bool
    """Whether the file contains a signature."""
    is_intact: bool
    """Whether every byte is as it was signed."""
    signer: str
    """Fingerprint of the signing key; "" without a signature."""
    metadata: dict[str, Any]
    """The file's metadata; trust it only if `is_intact` and the signer is known to you."""


def key_file() -> Path:
    path = os.environ.get(KEY_VARIABLE)
    return Path(path) if path else Path.home() / ".config" / "vitrine" / "key.pem"


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
        raise VitrineError(f"{path} holds a key of another kind; images are signed by Ed25519.")
    return key


def _new_key(path: Path) -> bytes:
    """Creates the key file, readable by its owner alone; another process may have been first."""
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
    """Fingerprint of a public key, this machine's own by default: 16 hexadecimal digits."""
    key = key or _read_key(key_file()).public_key()
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def signed_png(image: Image.Image, metadata: Mapping[str, Any]) -> bytes:
    """Encodes an image as a PNG with its provenance: `metadata` (JSON) and a signature."""
    info = PngInfo()
    info.add_itxt(METADATA_FIELD, json.dumps(metadata, ensure_ascii=False))
    info.add_itxt("DigitalSourceType", str(metadata.get("DigitalSourceType", "")))
    buffer = BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    content = buffer.getvalue()
    end = content.rindex(b"IEND") - 4
    key = _read_key(key_file())
    block = key.public_key().public_bytes_raw() + bytes(SIGNATURE_BYTES)
    before = content[:end] + struct.pack(">I", BLOCK_BYTES) + CHUNK
    blank = before + block + bytes(4) + content[end:]
    block = block[:32] + key.sign(blank)
    check = struct.pack(">I", zlib.crc32(CHUNK + block))
    return before + block + check + content[end:]


def signed_jpeg(image: Image.Image, metadata: Mapping[str, Any], quality: int = 92) -> bytes:
    """Encodes an image as a JPEG with its provenance: `metadata` (JSON) and a signature."""
    buffer = BytesIO()
    comment = json.dumps({METADATA_FIELD: metadata}, ensure_ascii=False).encode()
    image.convert("RGB").save(buffer, format="JPEG", quality=quality, comment=comment)
    content = buffer.getvalue()
    key = _read_key(key_file())
    block = key.public_key().public_bytes_raw() + bytes(SIGNATURE_BYTES)
    before = content[:2] + SEGMENT_HEAD
    signature = key.sign(before + block + content[2:])
    return before + block[:32] + signature + content[2:]


def verify(path: str | Path) -> SignatureCheck:
    """Checks the signature of a PNG or JPEG; raises VitrineError for a file that cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise VitrineError(f"{path} cannot be read ({error.strerror}).") from error
    location = _find_signature(content)
    metadata = _read_metadata(content)
    if location is None:
        return SignatureCheck(False, False, "", metadata)
    begin, zeroed = location
    block = content[begin : begin + BLOCK_BYTES]
    blank = content[: begin + 32] + bytes(zeroed) + content[begin + 32 + zeroed :]
    check = content[begin + BLOCK_BYTES : begin + 32 + zeroed]
    key = Ed25519PublicKey.from_public_bytes(block[:32])
    try:
        key.verify(block[32:], blank)
        is_intact = not check or check == struct.pack(">I", zlib.crc32(CHUNK + block))
    except InvalidSignature:
        is_intact = False
    return SignatureCheck(True, is_intact, fingerprint(key), metadata)


def _find_signature(content: bytes) -> tuple[int, int] | None:
    """Offset of the signature block, and number of bytes after its public key that were signed as 0."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        begin = content.rfind(struct.pack(">I", BLOCK_BYTES) + CHUNK)
        whole = begin >= 0 and len(content) >= begin + 8 + BLOCK_BYTES + 4
        return (begin + 8, SIGNATURE_BYTES + 4) if whole else None
    head = b"\xff\xd8" + SEGMENT_HEAD
    if content.startswith(head) and len(content) >= len(head) + BLOCK_BYTES:
        return len(head), SIGNATURE_BYTES
    return None


def _read_metadata(content: bytes) -> dict[str, Any]:
    """Metadata of an image file; empty where it has none that can be read."""
    try:
        with Image.open(BytesIO(content)) as image:
            if image.format == "PNG":
                image.load()
                metadata = json.loads(image.info.get(METADATA_FIELD, "{}"))
            else:
                metadata = json.loads(image.info.get("comment", b"{}")).get(METADATA_FIELD, {})
    except Exception:  # a damaged file raises nearly every kind of error
        return {}
    return metadata if isinstance(metadata, dict) else {}
