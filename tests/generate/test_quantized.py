"""A pretrained language model in 8 bits: trained under LoRA, saved, and written with as it was trained."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.text.config import TextConfig
from generate.text.language_model import load_language_model
from generate.text.run import run_text_generator
from generate.text.writer import load_writer
from launch.trainer import build_trainer
from pretrain.config import TrainerConfig
from tests.generate.test_text_prompts import chat_base  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.generate.tiny_text import TEXTS

Base = Callable[..., Path]


def is_int8(model: Any) -> bool:
    layer = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer
    return hasattr(layer.weight, "qdata") and layer.weight.qdata.dtype == torch.int8


def test_a_quantized_model_is_nearly_the_same_and_smaller(chat_base: Base) -> None:  # noqa: F811
    folder = str(chat_base())
    whole, tokenizer, base = load_language_model(folder, LoraConfig(), TEXTS)
    small, _, quantized = load_language_model(folder, LoraConfig(), TEXTS, quantize="int8")
    assert quantized.fingerprint == base.fingerprint, "of the weights as they were stored"
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        expected, found = (model(input_ids=ids).logits.softmax(-1) for model in (whole, small))
    assert 0 < (expected - found).abs().max() < 0.02
    assert is_int8(small)
    assert not is_int8(whole)
    trained = [name for name, one in small.named_parameters() if one.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_a_generator_writes_with_the_weights_that_it_learned_with(
    text_config: TextConfig,
    chat_base: Base,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = replace(text_config, model=str(chat_base()), max_prompt_tokens=200, quantize="int8")
    folder = run_text_generator(settings, tmp_path / "text", build_trainer)
    writer = load_writer(folder)
    assert writer.generator.base
    assert writer.generator.base.quantize == "int8"
    assert is_int8(writer.generator.language_model)
    assert writer.write("p1", "i3", "review")[0].text
    moved = [
        name for name, one in writer.generator.named_parameters() if "lora_B" in name and one.any()
    ]
    assert moved


def test_what_cannot_be_quantized_is_refused(
    text_config: TextConfig,
    chat_base: Base,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(VitrineError, match="has no linear layers that quantize int8 could round"):
        load_language_model(str(chat_base("gpt2")), LoraConfig(), TEXTS, quantize="int8")
    model = str(chat_base())
    sharded = TrainerConfig(max_steps=1, strategy="zero3")
    for wrong, said in (
        (replace(text_config, quantize="int8"), "quantize is for a pretrained model"),
        (replace(text_config, model=model, quantize="int8", trainer=sharded), "exclude each other"),
    ):
        with pytest.raises(VitrineError, match=said):
            run_text_generator(wrong, tmp_path / "wrong", build_trainer)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(VitrineError, match=r"needs torchao; install vitrine\[quantized\]"):
        load_language_model(model, LoraConfig(), TEXTS, quantize="int8")
