"""Fine-tuning with frozen towers reads the features that pretraining cached."""

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from catalog.config import CatalogConfig
from finetune.config import FinetuneConfig
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
    TrainerConfig,
)
from pretrain.modalities import Text
from pretrain.run import run_pretraining
from pretrain.vector_file import open_vectors

SMALL = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
STEP = TrainerConfig(max_steps=1, progress=False, checkpoint_every=0)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_towers_read_no_item_again_in_fine_tuning(
    frozen: bool, demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    rows: list[int] = []
    encode = Text.encode

    def counted(self: Text, tower: object, inputs: dict[str, Tensor]) -> Tensor:
        rows.append(len(inputs["input_ids"]))
        return encode(self, tower, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(Text, "encode", counted)
    catalog = CatalogConfig(path=str(demo_world / "home"))
    text = TowerConfig(config={**SMALL, "intermediate_size": 32}, vocab_size=200, frozen=frozen)
    encoder = EncoderConfig(width=16, text=text, image=None, sequence=SequenceConfig(heads=2))
    pretrain = PretrainConfig(
        catalog=catalog,
        encoder=encoder,
        data=PretrainDataConfig(rows=2, row_length=4, held_out=0.0),
        trainer=STEP,
    )
    run_pretraining(pretrain, tmp_path / "encoder", build_trainer)
    config = FinetuneConfig(str(tmp_path / "encoder"), catalog, transfer="frozen", trainer=STEP)
    rows.clear()
    run_finetuning(config, tmp_path / "cached", build_trainer)
    assert bool(rows) is not frozen  # a tower that pretraining changed is read, and fills no cache
    assert (tmp_path / "cache" / "towers").exists() is frozen
    monkeypatch.setattr("finetune.item_content.cache_frozen_features", lambda *_, **__: None)
    run_finetuning(config, tmp_path / "read", build_trainer)
    assert rows
    cached, read = (
        np.array(open_vectors(tmp_path / name / "item_vectors.safetensors"))
        for name in ("cached", "read")
    )
    np.testing.assert_allclose(cached, read, atol=1e-5)
