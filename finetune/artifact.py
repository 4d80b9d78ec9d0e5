"""Saves and loads the weights of a recommender; only trained weights are stored.

| transfer | what is written | what is needed to load it |
| --- | --- | --- |
| scratch, full | `encoder/` (all weights) and `head.safetensors` | nothing else |
| zero-shot, frozen | `head.safetensors` | the encoder it was trained on |
| lora | `adapter/` in PEFT's layout | the encoder it was trained on |
"""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from catalog.artifacts import Artifact
from catalog.errors import VitrineError
from finetune.assembly import AssembledRecommender
from finetune.bag_of_words import VOCABULARY_FILE, Vocabulary
from finetune.manifest import check_base
from finetune.recommender import Recommender
from finetune.transfer import (
    has_own_encoder,
    has_own_sequence_encoder,
    id_part_width,
    without_towers,
)
from pretrain.artifact import EncoderBundle, open_encoder
from pretrain.lora import expose_convolutions
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.shards import float32_state

ADAPTER = "adapter"
HEAD = "head.safetensors"
ENCODER = "encoder"
SEQUENCE_ENCODER = "history"
WEIGHTS = (ADAPTER, HEAD, ENCODER, SEQUENCE_ENCODER, VOCABULARY_FILE)


def save_weights(assembled: AssembledRecommender, transfer: str, folder: Path) -> None:
    """Writes the trained weights: a LoRA adapter, or the head and, if trained, the encoder."""
    assembled.recommender.history.config.save_pretrained(folder / SEQUENCE_ENCODER)
    if assembled.vocabulary is not None:
        assembled.vocabulary.save(folder)
    if assembled.peft is not None:
        weights = float32_state(assembled.peft)
        assembled.peft.save_pretrained(str(folder / ADAPTER), state_dict=weights)
        # PEFT writes a model card of placeholders.
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)
        return
    head = {
        name: value.contiguous().cpu()
        for name, value in float32_state(assembled.recommender).items()
        if not name.startswith("encoder.")
    }
    save_file(head, folder / HEAD)
    if has_own_encoder(transfer) and assembled.parts is not None:
        assembled.parts.save(folder / ENCODER)


def copy_weights(artifact: Artifact, folder: Path) -> None:
    """Copies all files of `save_weights` to the folder of a recommender with the same weights."""
    for name in WEIGHTS:
        path = artifact.path / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        elif path.exists():
            shutil.copy(path, folder / name)


def load_recommender(artifact: Artifact, encoder: str | Path | None = None) -> Recommender:
    """The recommender of an artifact with all weights loaded."""
    return load_assembled(artifact, encoder).recommender


def load_assembled(artifact: Artifact, encoder: str | Path | None = None) -> AssembledRecommender:
    """The recommender of an artifact with all weights loaded, and the encoder bundle it uses."""
    config: dict[str, Any] = artifact.manifest["config"]
    transfer, features = config["transfer"], config["features"]
    num_ids = _num_ids(artifact.path) if features in ("id", "content+id") else 0
    parts, peft = None, None
    if not without_towers(features):
        own = has_own_encoder(transfer)
        parts = EncoderBundle.load(artifact.path / ENCODER) if own else _base(artifact, encoder)
    id_width = id_part_width(features, config["bag_of_words"], config["id_width"])
    if has_own_sequence_encoder(features, transfer, config["sequence"], id_width):
        shape = SequenceEncoderConfig.from_pretrained(artifact.path / SEQUENCE_ENCODER)
        history = SequenceEncoder(shape, shape.model if transfer == "lora" else "")
    else:
        assert parts is not None
        history = parts.sequence_encoder
    encoder_part = None if parts is None else parts.encoder
    vocabulary = Vocabulary.load(artifact.path) if config["bag_of_words"] else None
    num_words = len(vocabulary.words) if vocabulary else 0
    recommender = Recommender(encoder_part, history, num_ids, id_width, num_words)
    if transfer == "lora":
        peft = PeftModel.from_pretrained(
            recommender,  # pyright: ignore[reportArgumentType]
            str(artifact.path / ADAPTER),
        )
        expose_convolutions(recommender)
    else:
        _load_head(recommender, artifact.path / HEAD)
    return AssembledRecommender(recommender, parts, vocabulary, peft)


def _num_ids(folder: Path) -> int:
    """Number of id embeddings; an extended catalog has more items."""
    path = folder / HEAD
    if not path.exists():
        path = folder / ADAPTER / "adapter_model.safetensors"
    with safe_open(path, "np") as weights:
        names = weights.keys()
        (name,) = (name for name in names if name.endswith("id_embeddings.weight"))
        return weights.get_slice(name).get_shape()[0]


def _load_head(recommender: nn.Module, path: Path) -> None:
    missing, unexpected = recommender.load_state_dict(load_file(path), strict=False)
    absent = [name for name in missing if not name.startswith("encoder.")]
    if absent or unexpected:
        raise VitrineError(f"{path} does not fit its recommender: {[*absent, *unexpected][:3]}")


def _base(artifact: Artifact, encoder: str | Path | None) -> EncoderBundle:
    """The encoder the artifact was trained on; VitrineError for another one, by its hash."""
    if encoder is None:
        return EncoderBundle.load(artifact.parent("encoder"))
    given, parts = open_encoder(encoder)
    check_base(artifact, given)
    return parts
