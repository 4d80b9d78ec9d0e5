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
    from generate.provenance import verify as verdict_on

    verdict = verdict_on(options.file)
    if not verdict.signed:
        raise VitrineError(f"{options.file} holds no signature of Vitrine's.")
    if not verdict.untouched:
        raise VitrineError(f"{options.file} was changed since it was signed.")
    expected = options.signer or fingerprint()
    if verdict.signer != expected:
        raise VitrineError(
            f"{options.file} was signed by the key {verdict.signer}, not by {expected}; if you know that "
            f"key, say so with --signer {verdict.signer}."
        )
    print(f"signed by {verdict.signer}, untouched")
    for name, value in verdict.about.items():
        print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")
