"""Tiny checkpoints of many architectures, built from configs and saved as Hugging Face folders."""

import json
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    PretrainedConfig,
)
from transformers.models.auto.auto_mappings import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from benchmarks.tiny_models import DUAL, FRAMES, MODELS, PIXELS, RATE, SECONDS, VOCABULARY
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.images import fit_image
from catalog.video_audio import read_audio
from pretrain.config import Kind
from pretrain.tokenizer import train_tokenizer

PROCESSORS = {"siglip2_vision_model": {"patch_size": 8, "max_num_patches": 16}}
EXTRACTORS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"num_mel_bins": 32, "max_length": 64},
    "clap_audio_model": {
        "feature_size": 32,
        "sampling_rate": RATE,
        "max_length_s": 1,
        "truncation": "rand_trunc",
    },
}
"""Settings of feature extractors, where the defaults do not suit the tiny model."""


WORDS = "red blue wool silk coat shirt long short warm light striped plain"
NAMES = [f"item{number}" for number in range(24)]


def tiny_shop(folder: Path) -> Catalog:
    """24 items with text, image, sound (half a second) and film (as many frames as the towers read)."""
    rng = np.random.default_rng(0)
    words = WORDS.split()
    rows = []
    folder.mkdir(parents=True)
    for name in NAMES:
        frames = [
            Image.fromarray(rng.integers(256, size=(44, 40, 3), dtype=np.uint8))
            for _ in range(FRAMES)
        ]
        frames[0].save(folder / f"{name}.png")
        frames[1].save(
            folder / f"{name}.webp",
            save_all=True,
            append_images=frames[2:] + frames[:1],
            lossless=True,
        )
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            noise = rng.normal(0, 5000, round(SECONDS * RATE)).clip(-32767, 32767)
            file.writeframes(noise.astype("<i2").tobytes())
        title = " ".join(rng.choice(words, rng.integers(2, 9)))
        files = {"image": f"{name}.png", "sound": f"{name}.wav", "film": f"{name}.webp"}
        rows.append({"item_id": name, "title": title, **files})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bought = [f"{u},{NAMES[(3 * u + t) % 24]},{10 * u + t}" for u in range(24) for t in range(5)]
    lines = ["user_id,item_id,timestamp", *bought]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    return load_catalog(CatalogConfig(path=str(folder)))


def save_tower(name: str, folder: Path, texts: list[str]) -> None:
    """Builds the tiny model `name` (of MODELS or DUAL) with random weights and saves it with its tokenizer,
    image processor or feature extractor, as a checkpoint is published."""
    torch.manual_seed(zlib.crc32(name.encode()))
    kinds = ("text", "image") if name in DUAL else (MODELS[name][0],)
    config = AutoConfig.for_model(name, **(DUAL.get(name) or MODELS[name][1]))
    model = model_class(config)(config).train()
    with torch.no_grad():
        for parameter in model.parameters():  # random biases and norms, which start at 0 and 1
            parameter.add_(0.02 * torch.randn_like(parameter))
    norms = [one for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    if (
        norms and model.main_input_name == "pixel_values"
    ):  # weights and statistics as training leaves them
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        for norm in norms:
            torch.nn.init.normal_(norm.weight, 1, 0.1)
            norm.momentum = None
        model(pixel_values=torch.randn(64, 3, PIXELS, PIXELS))
    model.save_pretrained(folder)
    if "text" in kinds:
        train_tokenizer(texts, VOCABULARY).save_pretrained(folder)
    if "image" in kinds or "video" in kinds:
        image_processor(name).save_pretrained(folder)
    if "audio" in kinds:
        extractor = getattr(transformers, FEATURE_EXTRACTOR_MAPPING_NAMES[_processor_owner(name)])  # pyright: ignore[reportArgumentType]
        extractor(**EXTRACTORS.get(name, {})).save_pretrained(folder)


def model_class(config: PretrainedConfig) -> Any:
    """The class a checkpoint of this config is published as; halves of CLIP with their projection."""
    stem = type(config).__name__.removesuffix("Config")
    projecting = getattr(transformers, f"{stem}ModelWithProjection", None)
    return projecting or getattr(transformers, f"{stem}Model")


def image_processor(name: str) -> Any:
    """The architecture's own image processor at the tiny model's size."""
    classes = IMAGE_PROCESSOR_MAPPING_NAMES.get(_processor_owner(name), {})
    kind = classes.get("pil") or "CLIPImageProcessorPil"
    cls = getattr(transformers, kind)
    if name in PROCESSORS:
        return cls(**PROCESSORS[name])
    size = {"height": PIXELS, "width": PIXELS}
    if "shortest_edge" in (cls().size or {}):
        # ConvNeXt's processor crops what it resizes to less than 384 pixels, by its own share.
        shorter = PIXELS if kind.startswith("ConvNext") else PIXELS + 4
        return cls(size={"shortest_edge": shorter}, crop_size=size)
    return cls(size=size, crop_size=size)


def _processor_owner(name: str) -> str:
    """The model type under which transformers lists the processor of a half."""
    whole = {"clap_audio_model": "clap", "siglip2_vision_model": "siglip2"}
    return whole.get(name, name.removesuffix("_vision_model"))


@torch.no_grad()
def own_vectors(name: str, kind: Kind, folder: Path, catalog: Catalog) -> NDArray[np.float32]:
    """One vector per item from the model's own preprocessing and forward pass, in transformers alone."""
    config = AutoConfig.from_pretrained(folder)
    if name == "vit_mae":
        config.mask_ratio = 0.0  # every patch
    model = model_class(config).from_pretrained(folder, config=config, dtype=torch.float32).eval()
    items = range(catalog.num_items)
    if kind == "text":
        return _own_text(name, folder, model, [catalog.texts()(item) or "" for item in items])
    if kind == "audio":
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        samples = round(SECONDS * RATE)
        waves = [
            read_audio(str(catalog.media_path(item, "sound")), RATE, samples) for item in items
        ]
        rounded = [np.round(one * 32767) / 32767 for one in waves]
        inputs = extractor(rounded, sampling_rate=RATE, return_tensors="pt")
        encoder = model.get_encoder() if config.is_encoder_decoder else model
        return _own_embedding(encoder(inputs[extractor.model_input_names[0]].float()))
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    column = "image" if kind == "image" else "film"
    images = [Image.open(str(catalog.media_path(item, column))) for item in items]
    if kind == "image":
        opened = [one.convert("RGB") for one in images]
        if (
            name == "siglip2_vision_model"
        ):  # its processor keeps shapes; a square has as many patches
            opened = [Image.fromarray(fit_image(one, max(one.size))) for one in opened]
        inputs = dict(processor(opened, return_tensors="pt"))
        if name in DUAL:
            return model.get_image_features(**inputs).pooler_output.numpy()
    else:
        inputs = {
            model.main_input_name: torch.stack([_own_frames(processor, one) for one in images])
        }
    if name == "vjepa2":
        inputs["skip_predictor"] = True  # pyright: ignore[reportArgumentType]
    output = model(**inputs)
    return output.pooler_output.numpy() if "siglip" in name else _own_embedding(output)


def _own_text(name: str, folder: Path, model: Any, texts: list[str]) -> NDArray[np.float32]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if "siglip" in name:  # reads all its positions, without a mask
        ids = tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt").input_ids
        embed = model.get_text_features if name in DUAL else model
        return embed(input_ids=ids).pooler_output.numpy()
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    if name in DUAL:
        inputs = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}
        return model.get_text_features(**inputs).pooler_output.numpy()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    output = encoder(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
    if getattr(output, "text_embeds", None) is not None:
        return output.text_embeds.numpy()
    mask = inputs.attention_mask.unsqueeze(-1)
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and name not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        last = inputs.attention_mask.sum(1) - 1
        return output.last_hidden_state[torch.arange(len(texts)), last].numpy()
    return ((output.last_hidden_state * mask).sum(1) / mask.sum(1)).numpy()


def _own_frames(processor: Any, film: Image.Image) -> Tensor:
    frames = []
    for number in range(FRAMES):
        film.seek(number)
        pixels = np.asarray(processor(film.convert("RGB"), return_tensors="np")["pixel_values"])
        frames.append(torch.from_numpy(pixels.reshape(pixels.shape[-3:])).float())
    return torch.stack(frames)


def _own_embedding(output: Any) -> NDArray[np.float32]:
    embedding = getattr(output, "image_embeds", None)
    embedding = getattr(output, "audio_embeds", embedding) if embedding is None else embedding
    if embedding is None:
        hidden = output.last_hidden_state
        embedding = hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)
    return embedding.numpy()
