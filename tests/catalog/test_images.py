"""Images as users have them: rotated, broken, huge, transparent, in odd colour spaces."""

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import BrokenFileError, VitrineError
from catalog.images import fit_image, read_image, read_resized_image, read_with_retries

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def near(pixel, colour, within=12):
    return np.abs(pixel.astype(int) - np.array(colour)).max() <= within


def halves(width=8, height=4, left=RED, right=BLUE):
    picture = Image.new("RGB", (width, height), left)
    picture.paste(right, (width // 2, 0, width, height))
    return picture


def shop(tmp_path: Path, *images: str | None):
    """A catalog with one item for each picture path."""
    folder = tmp_path / "shop"
    folder.mkdir(exist_ok=True)
    rows = "".join(f"i{n},{image or ''}\n" for n, image in enumerate(images))
    (folder / "items.csv").write_text(f"item_id,image\n{rows}")
    (folder / "interactions.csv").write_text("user_id,item_id\nu,i0\n")
    return load_catalog(CatalogConfig(str(folder)))


def test_an_image_is_letterboxed_on_its_border_colour(tmp_path):
    halves().save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert near(pixels[8, 0], RED)
    assert near(pixels[8, 15], BLUE)
    assert near(pixels[0, 0], (128, 0, 128), within=25)  # the mean of half red, half blue
    assert near(pixels[3, 0], pixels[0, 0], within=0)
    assert near(pixels[4, 0], RED, within=40)


def test_centre_fills_the_square_and_cuts_what_stands_over(tmp_path):
    picture = Image.new("RGB", (12, 4), GREEN)
    picture.paste(RED, (4, 0, 8, 4))
    picture.save(tmp_path / "a.png")
    assert near(read_image(tmp_path / "a.png", 4, crop="centre")[1:3, 1:3], RED)


def test_exif_rotation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise
    halves(16, 16).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = read_image(tmp_path / "a.jpg", 16)
    assert near(pixels[1, 8], RED, within=30)
    assert near(pixels[14, 8], BLUE, within=30)


def test_cmyk_palette_and_grey_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    assert near(read_image(tmp_path / "cmyk.jpg", 4), RED, within=40)
    Image.new("RGB", (8, 8), RED).quantize(4).save(tmp_path / "palette.png")
    assert near(read_image(tmp_path / "palette.png", 4), RED)
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert near(read_image(tmp_path / "bits.png", 4), (255, 255, 255))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_rather_than_clipped(tmp_path, name):
    grey = np.full((8, 8), 257 * 100, np.uint16)
    Image.fromarray(grey).save(tmp_path / name)
    assert near(read_image(tmp_path / name, 4), (100, 100, 100), within=1)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert near(read_image(tmp_path / "a.png", 4), (255, 255, 255))
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "b.png")
    assert near(read_image(tmp_path / "b.png", 4), (127, 127, 127), within=2)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "c.png", transparency=0)
    assert near(read_image(tmp_path / "c.png", 4), (255, 255, 255))


def test_a_sliver_keeps_at_least_a_pixel(tmp_path):
    Image.new("RGB", (1, 400), RED).save(tmp_path / "a.png")
    assert near(read_image(tmp_path / "a.png", 8)[4, 4], RED)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [7_100, 12_000, 60_000])
def test_too_large_images_are_refused_from_their_header(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with pytest.raises(BrokenFileError, match="too many"):
        read_image(tmp_path / "a.png", 8)


def test_a_broken_image_is_none_and_counted(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    halves().save(folder / "good.jpg")
    whole = (folder / "good.jpg").read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.jpg").write_bytes(b"this is no picture")
    (folder / "half.jpg").write_bytes(whole[: len(whole) - 40])
    (folder / "folder.jpg").mkdir()
    (folder / "huge.png").write_bytes(png_header(9_000, 9_000))
    names = ["good", "missing", "empty", "words", "half", "folder", "huge.png", None]
    paths = [n and (n if "." in n else f"{n}.jpg") for n in names]
    catalog = shop(tmp_path, *paths)
    seen = [catalog.item_image(i, 8) is not None for i in range(8)]
    assert seen == [True] + [False] * 7
    assert set(catalog.broken_images) == {1, 2, 3, 4, 5, 6}  # 7 never claimed to have one
    assert "missing" in catalog.broken_images[1]
    assert "empty" in catalog.broken_images[2]
    assert "not an image" in catalog.broken_images[3]


def test_images_are_found_by_relative_path(tmp_path):
    (tmp_path / "shop" / "images").mkdir(parents=True)
    halves().save(tmp_path / "shop" / "images" / "a.png")
    catalog = shop(tmp_path, "images/a.png", "images/../images/a.png")
    expected = str(tmp_path / "shop" / "images" / "a.png")
    assert catalog.items["image"][:] == [expected, expected]
    assert catalog.item_image(1, 8) is not None


@pytest.mark.parametrize("kind", ["absolute", "upwards", "neighbour", "link", "linked folder"])
def test_an_image_outside_the_folder_is_refused(tmp_path, kind):
    folder = tmp_path / "shop"
    folder.mkdir()
    outside = tmp_path / "shop-secrets"  # its name begins like the folder's own
    outside.mkdir()
    halves().save(outside / "a.png")
    (folder / "link.png").symlink_to(outside / "a.png")
    (folder / "linked").symlink_to(outside)
    path = {
        "absolute": str(outside / "a.png"),
        "upwards": "images/../../shop-secrets/a.png",
        "neighbour": "../shop-secrets/a.png",
        "link": "link.png",
        "linked folder": "linked/a.png",
    }[kind]
    with pytest.raises(VitrineError, match=r"item i1 has the image .*outside") as error:
        shop(tmp_path, None, path)
    assert path in str(error.value)


def test_a_file_replaced_by_a_link_is_detected(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    halves().save(folder / "a.png")
    shop(tmp_path, "a.png")
    shutil_target = tmp_path / "outside.png"
    (folder / "a.png").rename(shutil_target)
    (folder / "a.png").symlink_to(shutil_target)
    with pytest.raises(VitrineError, match="outside"):
        shop(tmp_path, "a.png")


def test_a_link_that_stays_inside_is_fine(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    halves().save(folder / "a.png")
    (folder / "b.png").symlink_to(folder / "a.png")
    assert shop(tmp_path, "b.png").item_image(0, 8) is not None


def test_urls_are_no_images_yet(tmp_path):
    catalog = shop(tmp_path, None, "https://example.org/a.png")
    assert catalog.items["image"][:] == [None, None]
    assert "https://example.org/a.png" in str(catalog.notes[0])
    assert "--fetch_images true" in catalog.notes[0].remedy


def failing_reads(monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> list[str]:
    """The next `times` openings of a picture fail with the error number `code`."""
    failed: list[str] = []
    open_picture = Image.open

    def open_or_fail(path, *arguments):
        if len(failed) < times:
            failed.append(str(path))
            raise OSError(code, os.strerror(code), str(path))
        return open_picture(path, *arguments)

    monkeypatch.setattr(Image, "open", open_or_fail)
    monkeypatch.setattr("catalog.images.RETRY_SECONDS", (0.0, 0.0))
    return failed


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_an_image_is_read_again_after_a_disk_error(tmp_path, monkeypatch, code):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    failed = failing_reads(monkeypatch, code, times=2)
    assert read_image(tmp_path / "red.png", 4)[0, 0].tolist() == [255, 0, 0]
    assert len(failed) == 2


def test_a_permanent_disk_error_is_no_broken_image(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    failing_reads(monkeypatch, errno.EIO, times=99)
    with pytest.raises(VitrineError, match=r"red\.png cannot be read: Input/output error; mend"):
        read_image(tmp_path / "red.png", 4)


def test_a_damaged_video_that_ffmpeg_reports_as_a_disk_error_is_broken(tmp_path):
    av = pytest.importorskip("av")

    def decode():
        raise av.error.OSError(errno.EIO, "Input/output error", str(tmp_path / "film.mp4"))

    (tmp_path / "film.mp4").write_bytes(b"cut short")
    with pytest.raises(BrokenFileError, match="damaged"):
        read_with_retries(tmp_path / "film.mp4", decode)


def detailed(width: int, height: int) -> Image.Image:
    """A picture with detail of all sizes: noise, of twice the amplitude at half the frequency."""
    rng = np.random.default_rng(0)
    pixels = np.full((height, width, 3), 128.0)
    for octave in range(1, 7):
        noise = rng.normal(0, 3 * 2.0**octave, (height >> octave, width >> octave, 3))
        grown = [
            Image.fromarray(noise[..., channel].astype(np.float32)).resize((width, height), 3)
            for channel in range(3)
        ]
        pixels += np.stack([np.asarray(part) for part in grown], axis=-1) / 4
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def psnr(one, other):
    """Peak signal-to-noise ratio in dB."""
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("crop", ["pad", "centre"])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("shape", [(900, 1300), (800, 2400), (700, 700)])
def test_a_large_jpeg_decoded_at_a_fraction_looks_as_the_whole(tmp_path, shape, orientation, crop):
    picture = detailed(*shape)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", quality=90, exif=exif)
    with Image.open(tmp_path / "a.jpg") as whole:
        whole.load()
        expected = fit_image(whole, (96, 128), crop)
    pixels = read_image(tmp_path / "a.jpg", (96, 128), crop)
    assert psnr(pixels, expected) >= 40


def test_a_jpeg_is_decoded_no_larger_than_it_has_to_be(tmp_path):
    detailed(1200, 800).save(tmp_path / "a.jpg")
    seen = []

    def resize(image):
        seen.append(image.size)
        return np.asarray(image)

    for size in [None, (100, 100), (200, 300), (600, 600)]:
        read_resized_image(tmp_path / "a.jpg", resize, size)
    assert seen == [(1200, 800), (300, 200), (600, 400), (1200, 800)]
