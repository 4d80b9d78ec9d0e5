"""`vitrine verify`: who signed a generated image, and whether it was changed since."""

import json
from dataclasses import dataclass

from catalog.errors import VitrineError


@dataclass(frozen=True)
class VerifyOptions:
    file: str
    """An image file, PNG or JPEG."""
    signer: str = ""
    """Fingerprint of the key that ought to have signed it; without it, this machine's own."""


def verify(options: VerifyOptions) -> None:
    from generate.provenance import fingerprint
    from generate.provenance import verify as check_signature

    check = check_signature(options.file)
    if not check.is_signed:
        raise VitrineError(f"{options.file} holds no signature of Vitrine's.")
    if not check.is_intact:
        raise VitrineError(f"{options.file} was changed since it was signed.")
    expected = options.signer or fingerprint()
    if check.signer != expected:
        raise VitrineError(
            f"{options.file} was signed by the key {check.signer}, not by {expected}; if you know that "
            f"key, say so with --signer {check.signer}."
        )
    print(f"signed by {check.signer}, unchanged")
    for name, value in check.metadata.items():
        print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
