"""Builds a recommender for a transfer mode, stores only what it trained, and puts it together again.

| transfer | what is written | what is needed to load it |
| --- | --- | --- |
| scratch, full | `encoder/` (all weights) and `head.safetensors` | nothing else |
| zero-shot, frozen | `head.safetensors` | the encoder it was trained on |
| lora | `adapter/` in PEFT's layout | the encoder it was trained on |
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from finetune.config import LoraConfig
from finetune.recommender import WHOLE_WITH_LORA, Recommender, set_trained, transformer_linears
from finetune.shop import Shop
from pretrain.artifact import EncoderParts, new_encoder, open_encoder
from pretrain.config import EncoderConfig, ModalityConfig, TowerConfig
from pretrain.embed import IDS_FILE, VECTORS_FILE
from pretrain.history import HistoryEncoder, HistoryEncoderConfig
from pretrain.store import open_vectors


@dataclass
class Assembled:
    """A recommender, the parts it was built on, and, with LoRA, the wrapper that saves its adapter."""

    recommender: Recommender
    parts: EncoderParts
    peft: PeftModel | None = None


def without_towers(features: str) -> bool:
    """Whether items are known by id alone or by random vectors."""
    return features in ("id", "random")


def assemble(
    parts: EncoderParts, transfer: str, features: str, num_items: int, lora: LoraConfig
) -> Assembled:
    """Wires the parts for training; `parts` are pretrained, or new for `scratch`."""
    num_ids = num_items if features in ("id", "content+id") else 0
    encoder = None if without_towers(features) else parts.encoder
    recommender = Recommender(encoder, parts.history, num_ids)
    if transfer != "lora":
        set_trained(recommender, transfer)
        return Assembled(recommender, parts)
    settings = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=transformer_linears(recommender),
        modules_to_save=[*WHOLE_WITH_LORA, *(["id_vectors"] if num_ids else [])],
    )
    return Assembled(recommender, parts, _wrap(recommender, settings))


def _wrap(recommender: Recommender, settings: PeftLoraConfig) -> PeftModel:
    """Injects the adapter in place; `recommender` itself stays the model that runs."""
    return get_peft_model(recommender, settings)  # pyright: ignore[reportArgumentType]


def fresh_parts(base: Artifact, catalog: Catalog) -> EncoderParts:
    """The same architecture as `base`, untrained, with a tokenizer learned from this catalog."""
    values = dict(base.manifest["config"]["encoder"])
    untrained = {"frozen": False, "lora_rank": 0}
    for tower in ("text", "image"):
        if values[tower] is not None:
            values[tower] = TowerConfig(**{**values[tower], **untrained})
    values["more"] = {
        name: ModalityConfig(**{**modality, **untrained})
        for name, modality in values["more"].items()
    }
    return new_encoder(EncoderConfig(**values), catalog)


def save_weights(assembled: Assembled, transfer: str, features: str, folder: Path) -> None:
    """Writes what training changed, and nothing else."""
    if assembled.peft is not None:
        assembled.peft.save_pretrained(str(folder / "adapter"))
        # PEFT writes a model card with placeholders; the manifest says what is true.
        (folder / "adapter" / "README.md").unlink(missing_ok=True)
        return
    head = {
        name: value.detach().contiguous().cpu()
        for name, value in assembled.recommender.state_dict().items()
        if not name.startswith("encoder.")
    }
    save_file(head, folder / "head.safetensors")
    assembled.recommender.history.config.save_pretrained(folder / "history")
    if transfer in ("scratch", "full") and not without_towers(features):
        assembled.parts.save(folder / "encoder")


def open_recommender(
    folder: str | Path, catalog: Catalog, encoder: str | Path | None = None
) -> Shop:
    """A verified recommender artifact as a `Shop`; its item ids must be this catalog's."""
    artifact = open_artifact(Path(folder), kind="recommender")
    _check_ids(artifact, catalog)
    vectors = open_vectors(artifact.path / VECTORS_FILE)
    return Shop(load_recommender(artifact, encoder), vectors)


def load_recommender(artifact: Artifact, encoder: str | Path | None = None) -> Recommender:
    """The recommender with all weights in place."""
    config: dict[str, Any] = artifact.manifest["config"]
    transfer, features = config["transfer"], config["features"]
    vectors = open_vectors(artifact.path / VECTORS_FILE)
    num_ids = len(vectors) if features in ("id", "content+id") else 0
    if transfer == "lora":
        parts = _base(artifact, encoder)
        recommender = Recommender(parts.encoder, parts.history, num_ids)
        PeftModel.from_pretrained(
            recommender,  # pyright: ignore[reportArgumentType]
            str(artifact.path / "adapter"),
        )
        return recommender
    if without_towers(features):
        history = HistoryEncoder(HistoryEncoderConfig.from_pretrained(artifact.path / "history"))
        recommender = Recommender(None, history, num_ids)
    elif transfer in ("zero-shot", "frozen"):
        parts = _base(artifact, encoder)
        recommender = Recommender(parts.encoder, parts.history, num_ids)
    else:
        parts = EncoderParts.load(artifact.path / "encoder")
        recommender = Recommender(parts.encoder, parts.history, num_ids)
    _load_head(recommender, artifact.path / "head.safetensors")
    return recommender


def _load_head(recommender: nn.Module, path: Path) -> None:
    missing, unexpected = recommender.load_state_dict(load_file(path), strict=False)
    lost = [name for name in missing if not name.startswith("encoder.")]
    if lost or unexpected:
        raise VitrineError(f"{path} does not fit its recommender: {[*lost, *unexpected][:3]}")


def _base(artifact: Artifact, encoder: str | Path | None) -> EncoderParts:
    """The encoder the artifact was trained on; another one is refused by its hash."""
    if encoder is None:
        return EncoderParts.load(artifact.parent("encoder"))
    given, parts = open_encoder(encoder)
    expected = artifact.manifest["parents"]["encoder"]["hash"]
    if given.hash != expected:
        raise VitrineError(
            f"{artifact.path} was trained on the encoder {expected[:12]}, but {encoder} is "
            f"{given.hash[:12]}; pass the encoder it was trained on"
        )
    return parts


def _check_ids(artifact: Artifact, catalog: Catalog) -> None:
    import pyarrow.parquet as pq

    ids = pq.read_table(artifact.path / IDS_FILE)["item_id"].to_pylist()
    theirs = list(catalog.items["item_id"])
    if ids == theirs:
        return
    different = sorted(set(ids) ^ set(theirs)) or ["(same ids, another order)"]
    raise VitrineError(
        f"{artifact.path} was made for another catalog than {catalog.folder}: "
        f"{len(different)} item ids differ, e.g. {', '.join(different[:3])}; "
        "pass the catalog it was trained on, or fine-tune again"
    )


def read_curves(folder: Path) -> dict[str, list[list[float]]]:
    """An artifact's learning curves: name → [[step, value], …]."""
    return json.loads((folder / "curves.json").read_text())
