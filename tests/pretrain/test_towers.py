"""Towers of many architectures, loaded by path: each embeds as its own forward pass does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.tiny_models import DUAL, MODELS, SECONDS, UNSEEN
from benchmarks.tiny_towers import own_vectors, save_tower, tiny_shop
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import EncoderConfig, ExtractConfig, Kind, ModalityConfig, TowerConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.extract import Extractors
from pretrain.lora import adaptable_layers, add_lora
from pretrain.modalities.image import normalize_as
from pretrain.projection_init import initialize_projections
from pretrain.towers.image_processor import ImageProcessor, read_image_processor

COLUMNS: dict[str, str] = {"text": "title", "image": "image", "audio": "sound", "video": "film"}
HALVES = [(name, MODELS[name][0]) for name in MODELS if name not in UNSEEN]
HALVES += [(name, kind) for name in DUAL if name not in UNSEEN for kind in ("text", "image")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return tiny_shop(tmp_path_factory.mktemp("tiny") / "shop")


@pytest.fixture(scope="module")
def checkpoints(shop: Catalog, tmp_path_factory: pytest.TempPathFactory) -> "Checkpoints":
    return Checkpoints(shop, tmp_path_factory.mktemp("checkpoints"))


class Checkpoints:
    """Tiny checkpoints, saved when they are first asked for."""

    def __init__(self, shop: Catalog, folder: Path) -> None:
        self.texts = [shop.texts()(item) or "" for item in range(shop.num_items)]
        self.folder = folder

    def __call__(self, name: str) -> Path:
        if not (self.folder / name).exists():
            save_tower(name, self.folder / name, self.texts)
        return self.folder / name


def settings(kind: Kind, model: Path, **changes: Any) -> ModalityConfig:
    values: dict[str, Any] = {"kind": kind, "source": COLUMNS[kind], "model": str(model)}
    return ModalityConfig(**{**values, "seconds": SECONDS, **changes})


def extracted(shop: Catalog, kind: Kind, model: Path, **changes: Any) -> torch.Tensor:
    config = ExtractConfig(**vars(settings(kind, model, **changes)))
    extractors = Extractors({"tower": config}, None, shop)
    loader = ItemContentLoader(shop, extractors.kinds, extractors.processors)
    with torch.no_grad():
        return extractors("tower", loader.read(np.arange(shop.num_items)))[0]


def encoder_of(shop: Catalog, kind: Kind, tower: ModalityConfig) -> EncoderBundle:
    config = EncoderConfig(width=8, text=None, image=None, extra_modalities={"content": tower})
    return new_encoder(config, shop)


@pytest.mark.parametrize(("name", "kind"), HALVES)
def test_a_tower_s_vectors_are_those_of_its_own_forward_pass(
    name: str, kind: Kind, shop: Catalog, checkpoints: Checkpoints
) -> None:
    ours = extracted(shop, kind, checkpoints(name)).numpy()
    own = own_vectors(name, kind, checkpoints(name), shop)
    assert ours.shape == own.shape
    assert np.abs(ours - own).max() <= 1e-5
    assert own.std(axis=0).mean() > 1e-4, "vectors that are all equal would prove nothing"


@pytest.mark.parametrize(
    "name", [name for name, kind in HALVES if kind == "image" and name in MODELS]
)
def test_pixels_are_those_of_the_checkpoint_s_processor(
    name: str, shop: Catalog, checkpoints: Checkpoints
) -> None:
    if name == "siglip2_vision_model":
        pytest.skip("its processor gives patches; the vectors are compared")
    bundle = encoder_of(shop, "image", settings("image", checkpoints(name)))
    ours = bundle.content_loader(shop).read(np.arange(6))["content"]["pixel_values"]
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoints(name), backend="pil")
    images = [Image.open(str(shop.media_path(item, "image"))) for item in range(6)]
    theirs = processor(images, return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "clip_vision_model", "efficientnet", "resnet", "swin"])
def test_low_rank_updates_reach_the_layers_of_every_kind_of_tower(
    name: str, shop: Catalog, checkpoints: Checkpoints
) -> None:
    kind = MODELS[name][0]
    bundle = encoder_of(shop, kind, settings(kind, checkpoints(name), lora_rank=2))
    tower = bundle.encoder.towers["content"]
    trained = [path for path, weight in tower.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in path for path in trained)
    content = bundle.content_loader(shop).read(np.arange(4))
    bundle.encoder(content).item.sum().backward()
    assert any(weight.grad is not None for weight in tower.parameters())


def test_layers_whose_weights_are_read_by_others_take_no_updates() -> None:
    model = nn.ModuleDict({"heads": nn.MultiheadAttention(8, 2), "linear": nn.Linear(8, 8)})
    assert adaptable_layers(model) == ["linear"]
    add_lora(model, "pooler", 2)
    model["heads"](*3 * [torch.zeros(1, 2, 8)])


def test_batch_norm_of_a_pretrained_tower_keeps_its_statistics(
    shop: Catalog, checkpoints: Checkpoints
) -> None:
    bundle = encoder_of(shop, "image", settings("image", checkpoints("resnet")))
    encoder = bundle.encoder.train()
    before = {k: v.clone() for k, v in encoder.named_buffers() if "running" in k}
    encoder(bundle.content_loader(shop).read(np.arange(8)))
    assert before
    assert all(
        torch.equal(value, before[key]) for key, value in encoder.named_buffers() if key in before
    )


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_weights_are_float32_in_whichever_precision_they_were_stored(
    stored: torch.dtype, shop: Catalog, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    model = transformers.AutoModel.from_pretrained(checkpoints("qwen3"))
    model.to(stored).save_pretrained(tmp_path / "half")
    transformers.AutoTokenizer.from_pretrained(checkpoints("qwen3")).save_pretrained(
        tmp_path / "half"
    )
    bundle = encoder_of(shop, "text", settings("text", tmp_path / "half"))
    bundle.save(tmp_path / "encoder")
    for encoder in (bundle.encoder, EncoderBundle.load(tmp_path / "encoder").encoder):
        assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
        assert encoder(bundle.content_loader(shop).read(np.arange(4))).item.isfinite().all()


def test_an_encoder_without_some_of_its_weights_is_refused(
    shop: Catalog, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    bundle = encoder_of(shop, "text", settings("text", checkpoints("t5")))
    bundle.save(tmp_path / "encoder")
    loaded = EncoderBundle.load(tmp_path / "encoder").encoder.state_dict()
    assert all(
        torch.equal(loaded[key], value) for key, value in bundle.encoder.state_dict().items()
    )
    weights = load_file(tmp_path / "encoder" / "model.safetensors")
    del weights["gate.score.weight"]
    save_file(weights, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        VitrineError, match=r"disagree about 1 weights, such as gate\.score\.weight"
    ):
        EncoderBundle.load(tmp_path / "encoder")


def test_image_size_overrules_the_processor_s_or_is_refused(
    shop: Catalog, checkpoints: Checkpoints
) -> None:
    wide = encoder_of(shop, "image", settings("image", checkpoints("vit"), image_size=48))
    content = wide.content_loader(shop).read(np.arange(4))
    assert content["content"]["pixel_values"].shape[-2:] == (48, 48)
    assert wide.encoder(content).item.isfinite().all()  # positions are interpolated
    with pytest.raises(VitrineError, match=r"a tower for video cannot be videomae: "):
        encoder_of(shop, "video", settings("video", checkpoints("videomae"), image_size=48))


def test_padding_to_a_square_crops_nothing(checkpoints: Checkpoints) -> None:
    image = Image.new("RGB", (100, 20), (255, 255, 255))
    image.paste((0, 0, 0), (90, 8, 94, 12))  # a dark corner that a center crop loses
    cropped = read_image_processor(str(checkpoints("clip_vision_model")))
    padded = read_image_processor(str(checkpoints("clip_vision_model")), pad_to_square=True)
    assert cropped(image).min() == 255
    assert padded(image).min() < 200
    assert padded(image).shape == cropped(image).shape == (32, 32, 3)


def test_a_processor_for_torchvision_alone_runs_through_pillow(tmp_path: Path) -> None:
    values = {"image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": True}
    values |= {"size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255}
    values |= {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    processor = read_image_processor(str(tmp_path))
    assert processor.shape == (32, 32)
    assert processor.mean == [0.5, 0.4, 0.3]
    assert processor.std == [0.2, 0.3, 0.4]


def test_channel_order_and_offsets_are_the_processor_s() -> None:
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    processor = transformers.MobileViTImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    )
    ours = ImageProcessor(processor.to_dict())
    assert ours(red)[0, 0].tolist() == [0, 0, 255]  # MobileViT reads BGR
    spec = {"mean": ours.mean, "std": ours.std, "processor": ours.values}
    theirs = processor(red, return_tensors="pt")["pixel_values"]
    assert torch.allclose(normalize_as(spec, ours(red)[None]), theirs, atol=1e-6)


def test_normalization_that_a_processor_cannot_leave_out_is_undone() -> None:
    processor = transformers.SamImageProcessorPil(
        size={"longest_edge": 32}, pad_size={"height": 32, "width": 32}
    )
    ours = ImageProcessor(processor.to_dict())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    spec = {"mean": ours.mean, "std": ours.std, "processor": ours.values}
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    assert (normalize_as(spec, ours(picture)[None]) - theirs).abs().max() < 0.51 / 255 / 0.22


def test_a_dual_encoder_starts_from_its_aligned_space(
    shop: Catalog, checkpoints: Checkpoints
) -> None:
    folder = checkpoints("clip")
    config = EncoderConfig(width=32, dual=str(folder), text=TowerConfig(), image=TowerConfig())
    config = EncoderConfig(**{**vars(config), "modality_dropout": 0.0})
    bundle = new_encoder(config, text_and_image(shop))
    loader = bundle.content_loader(text_and_image(shop))
    initialize_projections(bundle.encoder, loader, np.arange(24), seed=0)
    content = loader.read(np.arange(24))
    with torch.no_grad():
        ours = bundle.encoder(content).projected_embeddings  # (24, 2, 32)
    text, image = (
        torch.from_numpy(own_vectors("clip", k, folder, shop)) for k in ("text", "image")
    )
    centred = [nn.functional.normalize(part - part.mean(0), dim=-1) for part in (text, image)]
    own = centred[0] @ centred[1].T
    assert (
        ours[:, 0] @ ours[:, 1].T - own
    ).abs().max() < 0.3  # the projection's LayerNorm removes one direction of 32
    assert (
        torch.corrcoef(torch.stack([(ours[:, 0] @ ours[:, 1].T).flatten(), own.flatten()]))[0, 1]
        > 0.95
    )


def text_and_image(shop: Catalog) -> Catalog:
    return shop


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", {}, "which is no dual encoder such as CLIP"),
        ("clip", {"image": None}, "it encodes text alone"),
        ("clip", {"text": TowerConfig(pooling="mean")}, "reads each half's own embedding"),
    ],
)
def test_what_is_no_dual_encoder_is_one_line(
    name: str, changes: dict[str, Any], message: str, shop: Catalog, checkpoints: Checkpoints
) -> None:
    with pytest.raises(VitrineError, match=message):
        new_encoder(EncoderConfig(dual=str(checkpoints(name)), **changes), shop)


def test_sentence_transformers_metadata_decides_pooling_prompt_and_length(
    shop: Catalog, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = sentence_checkpoint(checkpoints("bert"), tmp_path / "sentences", "cls")
    bundle = encoder_of(shop, "text", settings("text", folder))
    spec = bundle.encoder.kinds["content"].spec
    assert (spec["pooling"], spec["normalize"], spec["max_tokens"]) == ("cls", True, 20)
    assert spec["prompt"] == "passage: "
    vectors = extracted(shop, "text", folder)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(24))
    plain = extracted(shop, "text", folder, pooling="cls", prompt="")
    assert not torch.allclose(plain.norm(dim=-1), torch.ones(24))
    given = extracted(shop, "text", folder, prompt="query: ", max_tokens=30)
    assert not torch.allclose(given, vectors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": ["Transformer", "Pooling", "Dense"]}, "with Dense, which is not run here"),
        ({"pooling": "pooling_mode_nonsense"}, "which is not known here; set pooling"),
    ],
)
def test_metadata_that_cannot_be_followed_is_one_line(
    changes: dict[str, Any], message: str, shop: Catalog, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = sentence_checkpoint(checkpoints("bert"), tmp_path / "sentences", "cls", **changes)
    with pytest.raises(VitrineError, match=message):
        encoder_of(shop, "text", settings("text", folder))
    encoder_of(shop, "text", settings("text", folder, pooling="mean"))  # the remedy


def sentence_checkpoint(
    base: Path,
    folder: Path,
    mode: str,
    modules: tuple[str, ...] | list[str] = ("Transformer", "Pooling", "Normalize"),
    pooling: str = "pooling_mode_cls_token",
) -> Path:
    """`base` with the files that sentence-transformers writes beside a model."""
    transformers.AutoModel.from_pretrained(base).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    listed = [
        {
            "idx": n,
            "name": str(n),
            "path": "" if not n else f"{n}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    prompts = {"query": "query: ", "passage": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return folder
