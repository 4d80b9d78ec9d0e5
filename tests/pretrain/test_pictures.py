"""Pictures on their way from the file to the tower: decoded, normalised."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModel

from pretrain.config import ModalityConfig
from pretrain.modalities.image import (
    ImageModality,
    image_tower_spec,
    normalize_pixels,
    preprocessing_key,
)

SMALL_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("shape", [(2, 300, 700, 3), (1, 2, 5, 4, 3), (0, 8, 8, 3), (7, 9, 3)])
def test_pixels_are_normalized_to_the_bit_as_by_arithmetic(
    shape: tuple[int, ...], rescaled: bool
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    values, scale = (pictures.astype(np.float64) * (1 / 255), 1) if rescaled else (pictures, 255)
    pixels = torch.from_numpy(values.astype(np.float32)).movedim(-1, -3)
    middle, spread = (torch.tensor(part).view(3, 1, 1) * scale for part in (mean, std))
    assert torch.equal(normalize_pixels(pictures, mean, std, rescaled), (pixels - middle) / spread)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_checkpoint_s_large_pictures_are_decoded_whole_unless_asked(
    tmp_path: Path, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AutoConfig.for_model("vit", **SMALL_VIT)
    AutoModel.from_config(config).save_pretrained(tmp_path / "vit")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    Image.new("RGB", (640, 640), "red").save(tmp_path / "a.jpg")
    settings = ModalityConfig(
        kind="image", source="image", model=str(tmp_path / "vit"), scaled_decoding=scaled
    )
    kind = ImageModality(image_tower_spec(settings))
    seen: list[tuple[int, int]] = []

    def resize(image: Image.Image) -> Any:
        seen.append(image.size)
        return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr(kind, "resize", resize)
    kind._read(str(tmp_path / "a.jpg"))
    assert seen == [(80, 80) if scaled else (640, 640)]
    keys = {preprocessing_key(spec) for spec in (kind.spec, kind.spec | {"scaled_decoding": True})}
    assert len(keys) == (1 if scaled else 2)
