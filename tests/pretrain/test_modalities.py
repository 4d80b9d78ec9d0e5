"""Every kind of content, alone and together: read by id, absent where it is absent, kept in order."""

import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import EncoderConfig, ModalityConfig, SequenceConfig, TowerConfig
from pretrain.modalities.text import Text

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
VIT = {**BERT, "model_type": "vit", "patch_size": 8}
GPT = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
WAV2VEC = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 8],
    "conv_stride": [8, 8],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "vocab_size": 4,
}
WHISPER = {
    "model_type": "whisper",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
NAMES = ["ash", "birch", "cedar", "date", "elm", "fir"]


def write_tone(path: Path, pitch: float, seconds: float = 0.5, rate: int = 8000) -> None:
    times = np.arange(round(seconds * rate)) / rate
    samples = (np.sin(2 * np.pi * pitch * times) * 20_000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def write_film(path: Path, colours: list[tuple[int, int, int]]) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in colours]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six items: the last has nothing but its title, and each kind misses somewhere."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = [
        {"item_id": name, "title": f"{name} wood", "price": None, "weight": None, "wood": None}
        for name in NAMES
    ]
    for place, name in enumerate(NAMES[:5]):
        for side in ("image", "back"):
            pixels = rng.integers(256, size=(24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}-{side}.png")
            rows[place][side] = f"{name}-{side}.png"
        write_tone(folder / f"{name}.wav", 200 + 100 * place)
        rows[place] |= {"audio": f"{name}.wav", "film": f"{name}.webp"}
        write_film(folder / f"{name}.webp", [(place * 40, 0, 0), (0, place * 40, 0)])
        rows[place] |= {"weight": 1.5 * place, "wood": "hard" if place % 2 else "soft"}
    rows[1]["back"] = None
    (folder / "birch.wav").write_bytes(b"RIFF")
    (folder / "cedar.webp").write_bytes(b"")
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = ["user_id,item_id,timestamp"] + [
        f"{u},{NAMES[(u + t) % 6]},{10 * u + t}" for u in range(6) for t in range(4)
    ]
    (folder / "interactions.csv").write_text("\n".join(taken) + "\n")
    vectors = rng.normal(size=(4, 7)).astype(np.float32)
    vectors[3] = np.nan
    ids = ["elm", "ash", "stranger", "cedar"]  # neither the catalog's order nor its items
    np.save(folder / "clip.npy", vectors)
    save_file({"vectors": vectors}, folder / "clip.safetensors")
    (folder / "clip.ids.txt").write_text("".join(f"{name}\n" for name in ids))
    table = pa.table({"item_id": ids, "clip": [row.tolist() for row in vectors]})
    pq.write_table(table, folder / "clip.parquet")
    return folder


@pytest.fixture(scope="module")
def shop(folder: Path) -> Catalog:
    return load_catalog(CatalogConfig(path=str(folder)))


def only(**more: ModalityConfig) -> EncoderConfig:
    """An encoder without the usual text and image."""
    config = EncoderConfig(width=8, text=None, image=None, extra_modalities=more)
    return replace(config, sequence=SequenceConfig(layers=1, heads=2), modality_dropout=0.0)


KINDS: dict[str, tuple[ModalityConfig, list[bool]]] = {
    "title": (ModalityConfig(config=BERT, source="title", vocab_size=60), [True] * 6),
    "decoder": (
        ModalityConfig(config=GPT, source="title", vocab_size=60, pooling="last"),
        [True] * 6,
    ),
    "back": (
        ModalityConfig(kind="image", config=VIT, source="back", image_size=16),
        [True, False, True, True, True, False],
    ),
    "sound": (
        ModalityConfig(kind="audio", config=WAV2VEC, source="audio", seconds=0.25),
        [True, False, True, True, True, False],
    ),
    "film": (
        ModalityConfig(kind="video", config=VIT, source="film", image_size=16, frames=3),
        [True, True, False, True, True, False],
    ),
    "attributes": (
        ModalityConfig(kind="attributes", source="price, weight, wood"),
        [True] * 5 + [False],
    ),
    "clip": (
        ModalityConfig(kind="features", source="clip.npy"),
        [True, False, False, False, True, False],
    ),
    "clip_tensors": (
        ModalityConfig(kind="features", source="clip.safetensors"),
        [True, False, False, False, True, False],
    ),
    "clip_table": (
        ModalityConfig(kind="features", source="clip.parquet"),
        [True, False, False, False, True, False],
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_read_by_id_and_absent_where_it_is_absent(
    name: str, shop: Catalog, tmp_path: Path
) -> None:
    settings, present = KINDS[name]
    torch.manual_seed(0)
    bundle = new_encoder(only(**{name: settings}), shop)
    bundle.encoder.eval()
    items = np.array([5, 3, 0, 1, 4, 2])
    with torch.no_grad():
        content = bundle.content_loader(shop).read(items)
        together = bundle.encoder(content)
        assert together.present[:, 0].tolist() == [present[item] for item in items]
        # Nobody's vector depends on who else is in the batch, or on the batch's order.
        for place, item in enumerate(items):
            alone = bundle.encoder(bundle.content_loader(shop).read(np.array([item])))
            torch.testing.assert_close(alone.item[0], together.item[place], atol=1e-5, rtol=1e-5)
        nothing = bundle.encoder(bundle.content_loader(shop).read(np.array([5]))).item[0]
        for place, item in enumerate(items):
            if name in ("title", "decoder"):
                continue
            same = torch.allclose(together.item[place], nothing, atol=1e-4)
            assert same == (not present[item])
    bundle.save(tmp_path)
    loaded = EncoderBundle.load(tmp_path)
    loaded.encoder.eval()
    again = loaded.encoder(loaded.content_loader(shop).read(items)).item
    torch.testing.assert_close(again, together.item, rtol=0, atol=0)


def test_all_kinds_go_into_one_vector_and_every_tower_learns(shop: Catalog) -> None:
    more = {name: settings for name, (settings, _) in KINDS.items()}
    more["back"] = ModalityConfig(kind="image", source="back", tower="image")
    config = replace(
        only(**more),
        text=TowerConfig(config=BERT, vocab_size=60),
        image=TowerConfig(config=VIT, image_size=16),
    )
    bundle = new_encoder(config, shop)
    assert bundle.encoder.modalities == ["text", "image", *KINDS]
    assert "back" not in bundle.encoder.towers, "it reads through the tower of image"
    vectors = bundle.encoder(bundle.content_loader(shop).read(np.arange(6)))
    (vectors.item.sum() + vectors.projected_embeddings.square().sum()).backward()
    for name, tower in bundle.encoder.towers.items():
        gradients = [p.grad for p in tower.parameters() if p.grad is not None]
        # A LayerNorm at its start has no slope where only directions count; its weights get one.
        assert any(g.abs().sum() > 0 for g in gradients), name


def test_what_a_sound_or_film_shows_decides_its_vector(shop: Catalog) -> None:
    bundle = new_encoder(only(film=KINDS["film"][0], sound=KINDS["sound"][0]), shop)
    content = bundle.content_loader(shop).read(np.array([0, 3, 4]))
    pixels = content["film"]["pixel_values"]
    assert pixels.shape == (3, 3, 3, 16, 16)  # items, frames, colours
    # Two frames make three: the first, one of them, the second.
    red, green = (pixels[2, frame, :, 8, 8] for frame in (0, 2))
    assert red[0] > red[1]
    assert green[1] > green[0]
    waves = content["sound"]["values"]
    assert waves.shape == (3, 4000)  # a quarter of a second at wav2vec2's 16 kHz
    peaks = torch.fft.rfft(waves).abs().argmax(dim=1) * 4  # Hz
    assert peaks.tolist() == [200, 500, 600]


def test_a_tower_that_hears_and_writes_is_taken_for_its_ears(shop: Catalog) -> None:
    sound = ModalityConfig(kind="audio", config=WHISPER, source="audio", seconds=0.5)
    bundle = new_encoder(only(sound=sound), shop)
    assert "decoder" not in dict(bundle.encoder.towers["sound"].named_children())
    found = bundle.encoder(bundle.content_loader(shop).read(np.arange(6)))
    assert found.present[:, 0].tolist() == [True, False, True, True, True, False]


def test_any_layer_and_pooling_of_a_tower(shop: Catalog) -> None:
    def vectors(**changes: Any) -> torch.Tensor:
        torch.manual_seed(0)
        two_layers = BERT | {"num_hidden_layers": 2}
        settings = ModalityConfig(config=two_layers, source="title", vocab_size=60, **changes)
        bundle = new_encoder(only(title=settings), shop)
        bundle.encoder.eval()
        return bundle.encoder(bundle.content_loader(shop).read(np.arange(6))).item

    last = vectors()
    torch.testing.assert_close(vectors(layer=2), last)
    torch.testing.assert_close(vectors(layer=-2), vectors(layer=1))
    for changes in ({"layer": 1}, {"layer": 0}, {"pooling": "cls"}, {"pooling": "last"}):
        assert (vectors(**changes) - last).abs().max() > 1e-3, changes
    with pytest.raises(VitrineError, match="layer is 7"):
        vectors(layer=7)


@pytest.mark.parametrize("marks", [["[CLS]", "[SEP]"], []])
def test_a_tokenizer_s_special_tokens_are_known_by_what_it_does(
    marks: list[str], shop: Catalog, tmp_path: Path
) -> None:
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "ash": 4, "birch": 5}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    if marks:
        words.post_processor = BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(tmp_path)
    config = AutoConfig.for_model(**BERT, vocab_size=6)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    kind, _ = Text.new(ModalityConfig(model=str(tmp_path), source="title"), shop)
    assert kind.spec["special_tokens"] == [vocabulary[mark] for mark in marks]


def test_low_rank_updates_are_all_that_is_trained_and_end_up_in_the_weights(
    shop: Catalog, tmp_path: Path
) -> None:
    from pretrain.lora import merge_lora

    settings = ModalityConfig(config=BERT, source="title", vocab_size=60, lora_rank=2)
    bundle = new_encoder(only(title=settings), shop)
    trained = [n for n, p in bundle.encoder.towers.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    for name, parameter in bundle.encoder.towers.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    bundle.encoder.eval()
    content = bundle.content_loader(shop).read(np.arange(6))
    before = bundle.encoder(content).item
    merge_lora(bundle.encoder)
    assert not [n for n, _ in bundle.encoder.named_parameters() if "lora" in n or "base" in n]
    bundle.save(tmp_path)
    loaded = EncoderBundle.load(tmp_path).encoder.eval()
    torch.testing.assert_close(loaded(content).item, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModalityConfig(kind="image", config=VIT, source="front"), "no column 'front'"),
        (ModalityConfig(kind="image", config=VIT), "does not say what it reads"),
        (ModalityConfig(kind="features", source="clap.npy"), "clap.npy, which is not there"),
        (ModalityConfig(kind="attributes", source="wieght"), "Did you mean 'weight'"),
        (ModalityConfig(kind="audio", config=VIT, source="audio"), "no feature extractor is known"),
        (ModalityConfig(kind="image", source="back", tower="imag"), "has no tower of its own"),
        (ModalityConfig(kind="image", source="back"), "a tower needs `model`"),
    ],
)
def test_a_mistake_is_one_clear_line(settings: ModalityConfig, message: str, shop: Catalog) -> None:
    with pytest.raises(VitrineError, match=message):
        new_encoder(only(extra=settings), shop)


def change_ids(names: list[str]) -> Callable[[Path], None]:
    return lambda folder: (folder / "v.ids.txt").write_text("\n".join(names))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "v.ids.txt").unlink(),
            r"write the ids of its rows into v\.ids\.txt",
        ),
        (change_ids(["ash", "elm"]), "holds 3 vectors, but there are 2 ids"),
        (change_ids(["ash", "elm", "ash"]), "names 1 ids more than once, such as ash"),
        (change_ids(["0", "1", "2"]), "a vector for none of the 6 items"),
        (lambda folder: np.save(folder / "v.npy", np.arange(3)), "expected numbers with a"),
        (lambda folder: (folder / "v.npy").write_bytes(b"junk"), "no array that can be read"),
    ],
)
def test_vectors_that_do_not_fit_the_catalog_are_refused(
    damage: Callable[[Path], None], message: str, folder: Path, shop: Catalog, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 4), dtype=np.float32))
    change_ids(["ash", "elm", "fir"])(tmp_path)
    damage(tmp_path)
    moved = replace(shop, folder=tmp_path)
    settings = only(v=ModalityConfig(kind="features", source="v.npy"))
    with pytest.raises(VitrineError, match=message):
        new_encoder(settings, moved).content_loader(moved)


def test_what_embed_wrote_can_be_read_as_features(shop: Catalog, tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    vectors = {"vectors": np.eye(2, 5, dtype=np.float32)}
    save_file(vectors, tmp_path / "vectors" / "item_vectors.safetensors")
    ids = pa.table({"item_id": ["fir", "ash"]})
    pq.write_table(ids, tmp_path / "vectors" / "item_ids.parquet")
    moved = replace(shop, folder=tmp_path)
    bundle = new_encoder(only(v=ModalityConfig(kind="features", source="vectors")), moved)
    content = bundle.content_loader(moved).read(np.array([0, 1, 5]))["v"]
    assert content["present"].tolist() == [True, False, True]
    assert content["values"].argmax(dim=1).tolist() == [1, 0]


def test_places_of_modalities_and_attributes_survive_saving(shop: Catalog, tmp_path: Path) -> None:
    """A gate and an attribute tower tell what they read apart by its place alone."""
    more = {
        "zeta": ModalityConfig(kind="attributes", source="weight, price, wood"),
        "alpha": ModalityConfig(kind="attributes", source="wood, weight"),
    }
    bundle = new_encoder(only(**more), shop)
    torch.nn.init.normal_(bundle.encoder.gate.prior)
    bundle.save(tmp_path)
    loaded = EncoderBundle.load(tmp_path)
    items = np.arange(6)
    one, other = (p.encoder.eval()(p.content_loader(shop).read(items)) for p in (bundle, loaded))
    assert loaded.encoder.modalities == ["zeta", "alpha"]
    torch.testing.assert_close(one.item, other.item, rtol=0, atol=0)
