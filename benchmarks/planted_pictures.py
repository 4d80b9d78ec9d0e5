"""Faults that are planted in pictures; nothing here uses the code that finds them."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.planted_tables import Copy, Fault, Judge, Planter, Row, draw


def opened(item: Row) -> Image.Image | None:
    """The image, None where it has none or it is broken."""
    try:
        with Image.open(item["image"]) as image:
            return image.convert("RGB")
    except (AttributeError, OSError, SyntaxError, ValueError):
        return None


def replaced(copy: Copy, item: Row, content: Image.Image | bytes, quality: int = 92) -> None:
    """Gives the item an image file of its own."""
    path = copy.folder / f"planted-{item['item_id']}.jpg"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, "JPEG", quality=quality)
    item["image"] = str(path)


def changing(change: Callable[[Image.Image, np.random.Generator, int], Image.Image]) -> Planter:
    def plant(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
        chosen = draw(copy, rng, count, opened)
        for number, item in enumerate(chosen):
            image = opened(item)
            assert image is not None
            replaced(copy, item, change(image, rng, number))
        return {item["item_id"] for item in chosen}

    return plant


def seen(rule: Callable[[Image.Image], bool]) -> Judge:
    def judge(copy: Copy, found: set[str]) -> set[str]:
        items = copy.by_id()
        images = {one: opened(items[one]) for one in found}
        return {one for one, image in images.items() if image is not None and rule(image)}

    return judge


def broken(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = draw(copy, rng, count, opened)
    for number, item in enumerate(chosen):
        whole = Path(item["image"]).read_bytes()
        contents = (whole[: len(whole) // 3], b"", b"<html>not found</html>", b"\xff\xd8\xff" * 99)
        replaced(copy, item, contents[number % 4])
    return {item["item_id"] for item in chosen}


def is_broken(copy: Copy, found: set[str]) -> set[str]:
    items = copy.by_id()
    return {one for one in found if opened(items[one]) is None}


def copied(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    chosen = draw(copy, rng, count, opened)
    pairs = list(zip(chosen[::2], chosen[1::2], strict=False))
    for one, other in pairs:
        replaced(copy, other, Path(one["image"]).read_bytes())
    return {item["item_id"] for pair in pairs for item in pair}


def same_bytes(share: float, least: int) -> Judge:
    def judge(copy: Copy, found: set[str]) -> set[str]:
        files = {i["item_id"]: Path(i["image"]) for i in copy.items if i["image"]}
        digests = {
            one: hashlib.md5(path.read_bytes()).hexdigest()
            for one, path in files.items()
            if path.is_file()
        }
        counts = Counter(digests.values())
        most = max(least, share * len(digests))
        return {one for one in found if counts[digests.get(one, "")] >= most}

    return judge


def no_image(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    """Gives 3 % of the items one grey image with a frame."""
    chosen = draw(copy, rng, max(count, len(copy.items) // 33), opened)
    image = Image.new("RGB", (200, 200), (220, 220, 220))
    image.paste((120, 120, 120), (40, 90, 160, 110))
    for item in chosen:
        replaced(copy, item, image)
    return {item["item_id"] for item in chosen}


def near_copy(copy: Copy, rng: np.random.Generator, count: int) -> set[str]:
    """Gives items another's image: compressed again, resized, or cropped by 2 %."""
    chosen = draw(copy, rng, count, opened)
    pairs = list(zip(chosen[::2], chosen[1::2], strict=False))
    for number, (one, other) in enumerate(pairs):
        image = opened(one)
        assert image is not None
        width, height = image.size
        quality = 92
        if number % 3 == 0:
            quality = 55
        elif number % 3 == 1:
            image = image.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
        else:
            cut = max(1, width // 50), max(1, height // 50)
            image = image.crop((cut[0], cut[1], width, height))
        replaced(copy, other, image, quality)
    return {item["item_id"] for pair in pairs for item in pair}


def flat(image: Image.Image, rng: np.random.Generator, number: int) -> Image.Image:
    red, green, blue = rng.integers(256, size=3).tolist()
    return Image.new("RGB", image.size, (red, green, blue))


def tiny(image: Image.Image, rng: np.random.Generator, number: int) -> Image.Image:
    image.thumbnail((40, 40))
    return image


def stretched(image: Image.Image, rng: np.random.Generator, number: int) -> Image.Image:
    return image.resize((600, 90) if number % 2 else (90, 600))


def is_flat(image: Image.Image) -> bool:
    return all(high - low <= 8 for low, high in image.getextrema())  # type: ignore[misc]


PICTURE_FAULTS: dict[str, Fault] = {
    "broken-images": Fault(broken, is_broken, pictures=True),
    "duplicate-images": Fault(copied, same_bytes(0, 2), pictures=True),
    "placeholder-images": Fault(no_image, same_bytes(0.01, 5), pictures=True),
    "near-duplicate-images": Fault(near_copy, pictures=True),
    "flat-images": Fault(changing(flat), seen(is_flat), pictures=True),
    "tiny-images": Fault(changing(tiny), seen(lambda image: min(image.size) < 64), pictures=True),
    "extreme-aspect": Fault(
        changing(stretched),
        seen(lambda image: max(image.size) > 4 * min(image.size)),
        pictures=True,
    ),
}
