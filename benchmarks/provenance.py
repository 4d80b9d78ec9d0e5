"""Provenance of generated images: signatures, and robustness and false positives of the watermark.

python -m benchmarks.provenance    # about a quarter of an hour on two cores
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from io import BytesIO
from math import lgamma
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.record import ROOT, write_record
from catalog.demo import build_demo_world
from catalog.errors import BrokenFileError
from catalog.images import read_image
from catalog.progress import track
from generate.image.watermark import STRENGTH, THRESHOLD, detect_watermark, embed_watermark
from generate.provenance import KEY_VARIABLE, signed_jpeg, signed_png, verify

DATA = ROOT.parent / "shared" / "data"
SIZES = (64, 128, 256)
SIGNED, EDITS = 40, 10
"""Images that are signed in each format; edited bytes of each."""
MARKED = 300
"""Images that are watermarked, of each size."""
Pixels = NDArray[np.uint8]


def unmodified(pixels: Pixels) -> Pixels:
    return pixels


def jpeg(pixels: Pixels, quality: int = 50) -> Pixels:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def half(pixels: Pixels) -> Pixels:
    return resized(pixels, 0.5)


def three_quarters(pixels: Pixels) -> Pixels:
    return resized(pixels, 0.75)


def larger(pixels: Pixels) -> Pixels:
    return resized(pixels, 1.5)


def resized(pixels: Pixels, share: float) -> Pixels:
    height, width = (round(side * share) for side in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def cropped(pixels: Pixels) -> Pixels:
    """Crops to three quarters of each side, not at a corner."""
    height, width = pixels.shape[:2]
    top, left = height // 7, width // 9
    return np.ascontiguousarray(pixels[top : top + height * 3 // 4, left : left + width * 3 // 4])


def lighter(pixels: Pixels) -> Pixels:
    return np.clip(pixels * 0.9 + 25, 0, 255).astype(np.uint8)


def cropped_jpeg(pixels: Pixels) -> Pixels:
    return jpeg(cropped(pixels), 75)


CHANGES = {
    "untouched": unmodified,
    "jpeg_q50": jpeg,
    "half_size": half,
    "three_quarters_size": three_quarters,
    "one_and_a_half_size": larger,
    "cropped": cropped,
    "lighter": lighter,
    "cropped_jpeg_q75": cropped_jpeg,
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[KEY_VARIABLE] = str(folder / "key.pem")
        world = build_demo_world(folder / "world")
        files = picture_files(world)
        figures = {**signatures(files, folder), **marks(files)}
    write_record(
        "image-provenance",
        claim="A signed picture verifies as long as no byte is changed, and the watermark is found after "
        "the changes that pictures meet, and hardly ever where it is not.",
        command="python -m benchmarks.provenance",
        seeds=[0],
        figures=figures,
        sources=["generate/image/watermark.py", "generate/provenance.py"],
        goal=[
            "untouched_verified == 1",
            "edits_noticed == 1",
            "tested_without_mark >= 30000",
            "false_positives_high <= 1e-4",
            *(f"survives_{change}_{SIZES[-1]}px >= 0.95" for change in ("jpeg_q50", "half_size")),
            f"survives_cropped_{SIZES[-1]}px >= 0.95",
        ],
        note=f"Signed: {SIGNED} pictures as PNG and as JPEG; edits: one bit of a byte anywhere in the "
        f"file, {EDITS} of each. Marked: {MARKED} pictures of each size, of the demo's shops, a fashion "
        f"shop, posters and wine labels; deviation of the mark {STRENGTH} of 255; psnr of marked to "
        f"unmarked in dB. Found: {THRESHOLD} deviations or more at the likeliest of 25 sizes and 4,096 "
        "places. Without mark: the same kinds of pictures at two sizes, each with every change; "
        "false_positives_high is the upper end of the 95 % interval (Clopper–Pearson).",
    )


def picture_files(world: Path) -> list[Path]:
    found = [*(world / "home" / "images").iterdir(), *(world / "wardrobe" / "images").iterdir()]
    for folder in ("fashion/images", "ml-100k/posters", "xwines/images"):
        found += (path for path in (DATA / folder).rglob("*") if path.is_file())
    order = np.random.default_rng(0).permutation(len(found))
    return [sorted(found)[place] for place in order]


def pictures(files: list[Path], size: int, count: int) -> Iterator[Pixels]:
    """Yields `count` images from the readable files, scaled to at most size × size."""
    for path in files:
        if count == 0:
            return
        try:
            yield read_image(path, size)
        except BrokenFileError:
            continue
        count -= 1


def signatures(files: list[Path], folder: Path) -> dict[str, float]:
    rng, file = np.random.default_rng(0), folder / "signed"
    verified, noticed = [], []
    for pixels in track(list(pictures(files, 128, SIGNED)), "Signing"):
        for sign in (signed_png, signed_jpeg):
            content = sign(Image.fromarray(pixels), {"Mode": "concept", "Item": "1"})
            file.write_bytes(content)
            verified.append(verify(file).is_intact)
            for place in rng.integers(len(content), size=EDITS).tolist():
                changed = bytearray(content)
                changed[place] ^= 1 << int(rng.integers(8))
                file.write_bytes(changed)
                noticed.append(not verify(file).is_intact)
    return {
        "signed": len(verified),
        "untouched_verified": float(np.mean(verified)),
        "edits": len(noticed),
        "edits_noticed": float(np.mean(noticed)),
    }


def marks(files: list[Path]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with Pool(2) as pool:
        for size in SIZES:
            plain = list(pictures(files, size, MARKED))
            marked = [embed_watermark(pixels) for pixels in plain]
            error = np.mean(
                [np.square(a.astype(float) - b).mean() for a, b in zip(plain, marked, strict=True)]
            )
            figures[f"psnr_{size}px"] = float(10 * np.log10(255**2 / error))
            for name, change in CHANGES.items():
                likeness = pool.map(detect_watermark, map(change, marked), chunksize=10)
                share = float(np.mean(np.array(likeness) >= THRESHOLD))
                figures[f"survives_{name}_{size}px"] = share
                print(f"{size} px, {name}: {share:.3f}", flush=True)
        plain = [one for size in (64, 96) for one in pictures(files, size, len(files))]
        changed = (change(one) for one in plain for change in CHANGES.values())
        tests = track(list(changed), "Looking where nothing is")
        found = np.fromiter(pool.imap_unordered(detect_watermark, tests, chunksize=50), float)
    hits = int((found >= THRESHOLD).sum())
    figures["tested_without_mark"] = len(found)
    figures["false_positives"] = hits / len(found)
    figures["false_positives_high"] = upper_bound(hits, len(found))
    figures["largest_without_mark"] = float(found.max())
    return figures


def upper_bound(hits: int, tests: int) -> float:
    """Upper end of the 95 % interval of a proportion (Clopper and Pearson 1934), by bisection."""
    low, high = hits / tests, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        # P(at most `hits`) under this share.
        logs = [
            _log_choose(tests, k) + k * np.log(middle) + (tests - k) * np.log1p(-middle)
            for k in range(hits + 1)
        ]
        low, high = (middle, high) if np.exp(logs).sum() > 0.025 else (low, middle)
    return high


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


if __name__ == "__main__":
    main()
