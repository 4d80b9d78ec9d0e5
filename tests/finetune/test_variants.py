"""Sequence encoders, ids beside content, sampled losses: each recommender ranks the same when loaded."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.components import build_components
from finetune.config import FinetuneConfig, FinetuneDataConfig
from finetune.run import run_finetuning
from pretrain.config import SequenceConfig, TrainerConfig
from pretrain.hub import make_config
from tests.finetune.test_transfer import LLAMA, build_trainer, ranks_as_it_did


@pytest.mark.parametrize("transfer", ["frozen", "lora", "full", "scratch"])
@pytest.mark.parametrize("kind", ["hstu", "decoder", "pretrained decoder"])
def test_any_sequence_encoder_ranks_the_same_when_loaded(
    kind: str, transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    sequence = SequenceConfig(layers=1, heads=2, max_history=6, block="hstu")
    if kind != "hstu":
        sequence = replace(sequence, block="attention", decoder=LLAMA)
    if kind == "pretrained decoder":
        torch.manual_seed(5)
        AutoModel.from_config(make_config({**LLAMA, "vocab_size": 9})).save_pretrained(
            tmp_path / "m"
        )
        sequence = replace(sequence, decoder={}, model=str(tmp_path / "m"))
    config = replace(settings, sequence=sequence, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    ranker = ranks_as_it_did(output, settings)
    assert ranker.max_history == 6
    if transfer == "lora" and kind == "pretrained decoder":
        with safe_open(output / "adapter" / "adapter_model.safetensors", "pt") as adapter:
            stored = list(adapter.keys())
            names = [name for name in stored if "decoder.model" in name]
            assert names
            assert all("lora_" in n for n in names), "what it brought is not stored again"


@pytest.mark.parametrize("transfer", ["scratch", "frozen", "lora", "full"])
def test_ids_may_stand_beside_content(
    transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="content+id", id_width=8, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    shop = ranks_as_it_did(output, settings)
    assert shop.width == 40
    vectors = torch.from_numpy(np.array(shop.item_vectors))
    content, ids = vectors[:, :32].norm(dim=1), vectors[:, 32:].norm(dim=1)
    torch.testing.assert_close(content, ids)
    sampled = replace(config, loss="sampled", negatives=9)
    run_finetuning(sampled, tmp_path / "sampled", build_trainer)


def test_ids_alone_need_no_encoder(demo_world: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        transfer="scratch",
        features="id",
        width=16,
        sequence=SequenceConfig(layers=1, heads=2, max_history=5),
        dropout=0.4,
        data=FinetuneDataConfig(rows=2),
        trainer=TrainerConfig(max_steps=2, progress=False),
    )
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    shop = ranks_as_it_did(output, config)
    assert shop.width == 16
    with pytest.raises(VitrineError, match="no encoder given; pass the folder"):
        run_finetuning(replace(config, features="content"), tmp_path / "other", build_trainer)


@pytest.mark.parametrize("loss", ["sampled", "in-batch"])
@pytest.mark.parametrize("transfer", ["frozen", "lora"])
def test_sampled_softmax_trains_every_transfer_mode(
    loss: str, transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, loss=loss, negatives=20, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    losses = [value for _, value in json.loads((output / "curves.json").read_text())["loss"]]
    assert np.isfinite(losses).all()


def test_dropout_can_be_set_for_a_pretrained_sequence_encoder(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    components = build_components(replace(settings, dropout=0.7), catalog)
    rates = {m.p for m in components.history.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.7}
