"""Near-duplicates are found among many items, without comparing all pairs, and others are not."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from catalog.doctor import similar
from catalog.doctor.look_alike import residuals, same_photo
from catalog.doctor.near_texts import BAND_ROWS, BANDS
from catalog.doctor.picture_scan import dhash
from catalog.doctor.similar import WINDOW, band_pairs, hamming_pairs, minhash_bands
from catalog.doctor.word_sets import jaccard, shingles


def photo(seed: int, side: int = 160) -> Image.Image:
    """A smooth random picture with details."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side))
    fine = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).resize((side, side))
    return Image.blend(coarse, fine, 0.25)


def compressed(image: Image.Image, quality: int = 60) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(BytesIO(file.getvalue())).convert("RGB")


def test_planted_neighbours_are_found_among_thousands_of_hashes() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, (5000, 2), np.uint64)
    near = hashes[:200].copy()
    for row in near:
        for bit in rng.permutation(128)[:5].tolist():
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    pairs = hamming_pairs(np.concatenate([hashes, near]), 8)
    assert all(right - left == 5000 for left, right in pairs.tolist())
    assert len(pairs) >= 195


def test_the_number_of_compared_pairs_grows_with_the_rows_alone() -> None:
    equal = np.zeros((3000, 2), np.uint64)
    assert len(hamming_pairs(equal, 0)) <= 8 * WINDOW * 3000
    assert len(band_pairs(np.zeros((2, 3000), np.uint32))) <= WINDOW * 3000


def test_no_more_pairs_are_held_than_fit_and_the_surest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similar, "MOST_KEPT", 2000)
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 40, (400, 6)).astype(np.uint32)
    bands[200:220] = bands[:20]
    pairs = band_pairs(bands.T).tolist()
    assert len(pairs) == 2000
    assert sum([n, n + 200] in pairs for n in range(20)) >= 18


def test_pairs_beyond_those_held_are_the_same_ones_in_every_band(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(similar, "MOST_KEPT", 1000)
    monkeypatch.setattr(similar, "BLOCK", 64)
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 40, (6, 400)).astype(np.uint32)  # each has more than 1,500 pairs
    bands[:, 200:260] = bands[:, :60]
    pairs = band_pairs(bands).tolist()
    places = [pairs.index([n, n + 200]) for n in range(60) if [n, n + 200] in pairs]
    assert len(pairs) == 1000
    assert len(places) >= 20, "as many as the share of pairs that is held"
    assert max(places) < len(places) + 10, "counted in each band, so that they come first"


def test_blocks_of_rows_have_the_neighbours_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    bands = np.random.default_rng(0).integers(0, 30, (4, 300)).astype(np.uint32)
    whole = band_pairs(bands)
    monkeypatch.setattr(similar, "BLOCK", 7)
    assert np.array_equal(band_pairs(bands), whole)
    equal = [np.zeros(300, np.uint32)]
    apart = np.diff(band_pairs(equal), axis=1)
    assert np.bincount(apart[:, 0]).tolist() == [0, *range(299, 299 - WINDOW, -1)]


def test_the_similarity_of_sets_is_the_share_of_all_elements_that_both_have() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**63, 30, np.uint64)
    sets = [rng.choice(words, rng.integers(1, 40)) for _ in range(50)]
    owners = np.repeat(np.arange(50), list(map(len, sets)))
    pairs = rng.integers(0, 50, (200, 2))
    expected = [
        len({*sets[a]} & {*sets[b]}) / len({*sets[a]} | {*sets[b]}) for a, b in pairs.tolist()
    ]
    assert np.allclose(jaccard(np.concatenate(sets), owners, pairs), expected)
    assert len(jaccard(np.empty(0, np.uint64), np.empty(0, np.int64), pairs[:0])) == 0


def test_no_rows_have_no_pairs() -> None:
    assert len(hamming_pairs(np.empty((0, 2), np.uint64), 8)) == 0
    assert len(band_pairs(np.empty((4, 0), np.uint32))) == 0


@pytest.mark.parametrize("change", ["compressed", "smaller", "cropped"])
def test_a_changed_photo_is_the_same_photo(change: str) -> None:
    for seed in range(5):
        image = photo(seed)
        other = {
            "compressed": compressed(image),
            "smaller": image.resize((100, 100)),
            "cropped": image.crop((3, 3, 160, 160)),
        }[change]
        one, two = np.asarray(image), np.asarray(other)
        assert same_photo(one, two, 0.77), (change, seed)
        bits = np.bitwise_count(
            np.array(dhash(image), np.uint64) ^ np.array(dhash(other), np.uint64)
        ).sum()
        assert bits <= 20


def test_two_photos_of_one_outline_are_not_the_same_photo() -> None:
    def product(seed: int) -> np.ndarray:
        pixels = np.full((160, 160, 3), 250, np.uint8)
        fabric = np.random.default_rng(seed).integers(10, 120, (30, 20, 3), np.uint8)
        pixels[20:140, 40:120] = np.asarray(Image.fromarray(fabric).resize((80, 120)))
        return pixels

    thumbnails = [
        np.asarray(Image.fromarray(product(seed)).resize((8, 8))).astype(float)[None]
        for seed in (0, 1)
    ]
    assert residuals(*thumbnails)[0] < 0.2
    assert same_photo(product(0), product(0), 0.77)
    assert not same_photo(product(0), product(1), 0.77)


def test_texts_that_share_most_words_share_a_band_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(2000)]
    texts = [" ".join(rng.choice(words, 20)) for _ in range(300)]
    changed = [text.replace(text.split()[7], "other", 1) for text in texts[:100]]
    rows, tokens, owners, _ = shingles(pa.array([*texts, *changed, "too short"], pa.large_string()))
    assert len(rows) == 400
    pairs = band_pairs(minhash_bands(tokens, owners, len(rows), BANDS, BAND_ROWS)).tolist()
    assert sum([n, n + 300] in pairs for n in range(100)) >= 98
    alike = jaccard(tokens, owners, np.array([[n, n + 300] for n in range(100)]))
    assert alike.min() > 0.65
    assert jaccard(tokens, owners, np.array([[0, 1]]))[0] < 0.2


def test_case_and_punctuation_make_no_other_words() -> None:
    pair = ["A red Mug, for tea; and more of it!", "a red mug for tea and more of it"]
    _, tokens, _owners, whole = shingles(pa.array(pair, pa.large_string()))
    half = len(tokens) // 2
    assert set(tokens[:half].tolist()) == set(tokens[half:].tolist())
    assert whole[0] != whole[1]
