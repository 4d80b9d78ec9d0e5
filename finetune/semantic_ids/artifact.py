"""Saves and loads the artifact of a semantic-id recommender; it is complete without its encoder."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from finetune.manifest import check_ids, serves_repeats
from finetune.recommender import Recommender
from finetune.semantic_ids.config import SemanticIdConfig
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.ranker import SemanticRanker
from finetune.semantic_ids.trie import Trie
from pretrain.devices import Compute, on_cpu
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.shards import float32_state
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import VECTORS_FILE

CODES_FILE = "codes.safetensors"
"""`codes` int32 (num_items, length), `sizes` (length,): of each level, `warm_items` uint8 (num_items,)."""
WEIGHTS_FILE = "model.safetensors"


def save_model(model: SemanticRecommender, warm_items: NDArray[np.bool_], folder: Path) -> None:
    """Writes the weights and codes; `warm_items` bool (num_items,): those with training interactions."""
    arrays = {
        "codes": model.codes.cpu().numpy().astype(np.int32),
        "sizes": np.array(model.trie.sizes, dtype=np.int32),
        "warm_items": warm_items.astype(np.uint8),
    }
    save_arrays(arrays, folder / CODES_FILE)
    weights = {name: value.contiguous().cpu() for name, value in float32_state(model).items()}
    save_file(weights, folder / WEIGHTS_FILE)
    model.recommender.history.config.save_pretrained(folder / "history")


def load_semantic_ranker(
    recommender: str | Path | Artifact, catalog: Catalog, compute: Compute | None = None
) -> SemanticRanker:
    """The ranker of a verified semantic-ids artifact, whose item ids must be those of `catalog`.

    `compute`: device and precision; None: float32 on the CPU.
    """
    artifact, compute = open_artifact(recommender, kind="semantic-ids"), compute or on_cpu()
    check_ids(artifact, catalog)
    arrays = load_arrays(artifact.path / CODES_FILE)
    codes = arrays["codes"].astype(np.int64)
    settings = SemanticIdConfig(**artifact.manifest["config"]["semantic_ids"])
    shape = SequenceEncoderConfig.from_pretrained(artifact.path / "history")
    model = SemanticRecommender(
        Recommender(None, SequenceEncoder(shape)),
        Trie(codes, arrays["sizes"].tolist()),
        torch.from_numpy(codes),
        settings.num_layers,
    )
    model.load_state_dict(load_file(artifact.path / WEIGHTS_FILE))
    vectors = open_vectors(artifact.path / VECTORS_FILE)
    repeats = serves_repeats(artifact.manifest["config"])
    warm_items = arrays["warm_items"].astype(bool)
    model = compute.place(model)
    return SemanticRanker(model, vectors, warm_items, settings, repeats, compute.precision)
