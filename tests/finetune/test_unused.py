"""Whatever is fine-tuned, every weight that is to be trained has a gradient: DDP waits for each."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from finetune.config import FinetuneConfig, LoraConfig
from finetune.run import run_finetuning
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.run import run_semantic_ids
from pretrain.config import TrainerConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora without alignment": {"alignment": 0.0},
    "lora of the reader": {"lora": LoraConfig(rank=2, target_encoders="sequence")},
    "lora of texts": {"lora": LoraConfig(rank=2, target_encoders="text"), "modalities": "text"},
    "lora and words": {"bag_of_words": True, "features": "content+id", "id_width": 8},
    "full": {"transfer": "full"},
    "full without alignment": {"transfer": "full", "alignment": 0.0},
    "full, sampled": {"transfer": "full", "loss": "sampled", "negatives": 16},
    "scratch, in-batch": {"transfer": "scratch", "loss": "in-batch"},
    "frozen": {"transfer": "frozen", "features": "content+id"},
    "ids": {"transfer": "scratch", "features": "id"},
    "ids and words": {"transfer": "scratch", "features": "id", "bag_of_words": True},
    "random": {"transfer": "scratch", "features": "random"},
}


class Looked(Exception):
    """Ends a run where it would begin to train."""


class Looking(pl.Trainer):
    """Takes the gradient of one step and lists what is to be trained and has none."""

    def fit(self, model: Any, datamodule: Any) -> None:  # type: ignore[override]
        model.log = lambda *_, **__: None
        model.train()
        rows = datamodule.rows
        model.training_step(datamodule.collate([rows[0], rows[1]]), 0).backward()
        learns = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert learns
        raise Looked([name for name, grad in learns.items() if grad is None])


def looking(config: TrainerConfig, folder: Path, title: str, callbacks: Any) -> pl.Trainer:
    return Looking(accelerator="cpu", logger=False, enable_checkpointing=False)


def without_gradient(run: Callable[..., Path], config: FinetuneConfig, output: Path) -> list[str]:
    with pytest.raises(Looked) as looked:
        run(config, output, looking)
    return looked.value.args[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_weight_that_is_to_be_trained_is_read(
    name: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, **VARIANTS[name])
    assert without_gradient(run_finetuning, config, tmp_path / "run") == []


@pytest.mark.parametrize("cold", [0, 10])
def test_semantic_ids_train_what_their_losses_read(
    cold: int, settings: FinetuneConfig, tmp_path: Path
) -> None:
    semantic = SemanticIdConfig(
        num_levels=2, codebook_size=8, beam_size=20, num_cold_candidates=cold
    )
    config = replace(settings, semantic_ids=semantic)
    assert without_gradient(run_semantic_ids, config, tmp_path / "run") == []
