"""Builds a recommender for a transfer mode, stores only what it trained, and puts it together again.

| transfer | what is written | what is needed to load it |
| --- | --- | --- |
| scratch, full | `encoder/` (all weights) and `head.safetensors` | nothing else |
| zero-shot, frozen | `head.safetensors` | the encoder it was trained on |
| lora | `adapter/` in PEFT's layout | the encoder it was trained on |
"""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from catalog.artifacts import Artifact, open_artifact, read_manifest
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError, did_you_mean
from finetune.bag_of_words import VOCABULARY_FILE, Vocabulary
from finetune.config import FinetuneConfig, LoraConfig
from finetune.recommender import WHOLE_WITH_LORA, Recommender, linears_in, set_trained
from pretrain.artifact import EncoderBundle, new_encoder, open_encoder
from pretrain.config import EncoderConfig, ModalityConfig, SequenceConfig, TowerConfig
from pretrain.embed import IDS_FILE
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig, new_sequence_encoder
from pretrain.shards import float32_state

SEMANTIC_IDS = "semantic-ids"
"""The artifact kind of recommenders that decode semantic ids."""
COUNTS_FILE = "train_counts.npy"
"""How often each item was taken in training: int64 (num_items,)."""
ADAPTER = "adapter"
HEAD = "head.safetensors"
ENCODER = "encoder"
READER = "history"
WEIGHTS = (ADAPTER, HEAD, ENCODER, READER, VOCABULARY_FILE)


@dataclass
class Start:
    """What a domain starts from: towers where items are known by content, a reader of histories."""

    base: Artifact | None
    """The encoder artifact; None where items are known by id alone and none was given."""
    parts: EncoderBundle | None
    """Pretrained, or new for `scratch`; None where there are no towers."""
    history: SequenceEncoder
    own_reader: bool
    """The reader is a new one, rather than what was pretrained with the encoder."""
    id_width: int
    """Of vectors that ids and words have beside the content's."""
    vocabulary: Vocabulary | None
    """Words that have vectors of their own."""


def start(
    config: FinetuneConfig, catalog: Catalog, counted: NDArray[np.bool_] | None = None
) -> Start:
    """The parts that `config` asks for, untrained where it says so; words are those of the items
    `counted`, bool (num_items,), by default all."""
    base, parts, settings = None, None, EncoderConfig(width=config.width)
    if config.encoder or not without_towers(config.features):
        base, parts = open_encoder(config.encoder)
        if config.transfer == "scratch" or width_beside(
            config.features, config.bag_of_words, config.id_width
        ):
            settings = encoder_settings(base)
        else:
            settings = replace(settings, width=parts.sequence_encoder.config.width)
    if config.user is not None:
        settings = replace(settings, sequence=config.user)
    if without_towers(config.features):
        parts = None
    elif config.transfer == "scratch":
        parts = new_encoder(settings, catalog)
    id_width = width_beside(config.features, config.bag_of_words, config.id_width)
    own = has_own_reader(config.features, config.transfer, config.user, id_width)
    if own:
        history = new_sequence_encoder(settings.sequence, settings.width + id_width)
    else:
        assert parts is not None
        history = parts.sequence_encoder
    if config.dropout is not None:
        for module in history.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
    vocabulary = Vocabulary.learn(catalog, counted) if config.bag_of_words else None
    return Start(base, parts, history, own, id_width, vocabulary)


def encoder_settings(base: Artifact) -> EncoderConfig:
    """Those of an encoder artifact, as its pretraining began.

    A tower that brought weights and was kept frozen is kept so here, too: what it knows does not come
    from pretraining. One of untrained weights learns.
    """
    values = dict(base.manifest["config"]["encoder"])

    def begun(tower: dict[str, Any]) -> dict[str, Any]:
        return {**tower, "frozen": bool(tower["model"]) and tower["frozen"], "lora_rank": 0}

    for tower in ("text", "image"):
        if values[tower] is not None:
            values[tower] = TowerConfig(**begun(values[tower]))
    values["extra_modalities"] = {
        n: ModalityConfig(**begun(modality)) for n, modality in values["extra_modalities"].items()
    }
    values["sequence"] = SequenceConfig(**values["sequence"])
    return EncoderConfig(**values)


@dataclass
class Assembled:
    """A recommender, the parts it was built on, and, with LoRA, the wrapper that saves its adapter."""

    recommender: Recommender
    parts: EncoderBundle | None
    vocabulary: Vocabulary | None
    peft: PeftModel | None = None


def without_towers(features: str) -> bool:
    """Whether items are known by id alone or by random vectors."""
    return features in ("id", "random")


def selected_modalities(modalities: str, known: Collection[str]) -> set[str]:
    """The names in the setting `modalities`; VitrineError for one that the encoder does not read."""
    names = {name.strip() for name in modalities.split(",") if name.strip()}
    for name in names:
        if name not in known:
            raise VitrineError(
                f"modalities names {name!r}, which the encoder does not read.{did_you_mean(name, known)}"
            )
    return names


def has_own_encoder(transfer: str) -> bool:
    """Whether all weights of the towers are stored with the recommender."""
    return transfer in ("scratch", "full")


def width_beside(features: str, bag_of_words: bool, id_width: int) -> int:
    """What ids and words have to themselves beside the content."""
    return id_width if features == "content+id" or (bag_of_words and features != "id") else 0


def has_own_reader(features: str, transfer: str, user: Any, id_width: int) -> bool:
    """Whether the reader of histories is a new one, kept apart from the encoder's parts."""
    asked_for = user is not None and transfer != "scratch"
    return without_towers(features) or id_width > 0 or asked_for


def assemble(begun: Start, config: FinetuneConfig, num_items: int) -> Assembled:
    """Wires the parts for training."""
    num_ids = num_items if config.features in ("id", "content+id") else 0
    encoder = None if begun.parts is None else begun.parts.encoder
    num_words = 0 if begun.vocabulary is None else len(begun.vocabulary.words)
    recommender = Recommender(encoder, begun.history, num_ids, begun.id_width, num_words)
    if config.transfer != "lora":
        set_trained(recommender, config.transfer)
        return Assembled(recommender, begun.parts, begun.vocabulary)
    whole = [
        *WHOLE_WITH_LORA,
        *(["id_vectors"] if num_ids else []),
        *(["bag_of_words"] if num_words else []),
    ]
    if begun.own_reader and begun.history.config.model:
        whole += ["history.norm", "decoder.into", "decoder.out_of"]
    elif begun.own_reader:
        whole.remove("recent")
        whole.append("history")
    settings = PeftLoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=lora_targets(begun, recommender, config.lora),
        modules_to_save=whole,
    )
    return Assembled(recommender, begun.parts, begun.vocabulary, _wrap(recommender, settings))


def lora_targets(begun: Start, recommender: Recommender, lora: LoraConfig) -> list[str]:
    """Names of the layers with low-rank updates; VitrineError where none is as asked for.

    A new reader has none: they are updates of something trained.
    """
    encoder = recommender.encoder
    trained_before: dict[str, list[str]] = {}
    if encoder is not None:
        for name in encoder.modalities:
            trained_before[name] = [f"encoder.towers.{encoder.reads_through(name)}."]
    new = begun.own_reader and not begun.history.config.model
    pretrained = "history.decoder.model." if begun.own_reader else "history."
    trained_before["sequence"] = [] if new else [pretrained]
    parts = wanted_parts(lora.target_encoders, trained_before)
    found = linears_in(recommender, *(place for part in parts for place in trained_before[part]))
    if not found:
        raise VitrineError(
            f"lora.target_encoders names {lora.target_encoders!r} alone, which is new here and trained "
            f"whole; name one of {', '.join(name for name, places in trained_before.items() if places)}, too"
        )
    ends = [end.strip() for end in lora.target_modules.split(",") if end.strip()]
    for end in ends:
        if not any(f".{name}".endswith(f".{end}") for name in found):
            known = sorted({name.rpartition(".")[2] for name in found})
            raise VitrineError(
                f"lora.target_modules names {end!r}, but no linear layer ends so; there are "
                f"{', '.join(known)}"
            )
    if ends:
        found = [name for name in found if f".{name}".endswith(tuple(f".{end}" for end in ends))]
    return found


def wanted_parts(parts: str, known: Collection[str]) -> list[str]:
    """Those that the setting `lora.target_encoders` names, all if none; VitrineError for one not there."""
    names = [name.strip() for name in parts.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise VitrineError(
                f"lora.target_encoders names {name!r}, which the encoder does not read."
                f"{did_you_mean(name, known)}"
            )
    return names or list(known)


def _wrap(recommender: Recommender, settings: PeftLoraConfig) -> PeftModel:
    """Injects the adapter in place; `recommender` itself stays the model that runs."""
    return get_peft_model(recommender, settings)  # pyright: ignore[reportArgumentType]


def save_weights(assembled: Assembled, transfer: str, folder: Path) -> None:
    """Writes what training changed, and nothing else."""
    assembled.recommender.history.config.save_pretrained(folder / READER)
    if assembled.vocabulary is not None:
        assembled.vocabulary.save(folder)
    if assembled.peft is not None:
        weights = float32_state(assembled.peft)
        assembled.peft.save_pretrained(str(folder / ADAPTER), state_dict=weights)
        # PEFT writes a model card with placeholders; the manifest says what is true.
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


def serves_repeats(config: Mapping[str, Any]) -> bool:
    """Whether lists of a recommender with this `config` may hold what the user has already."""
    return config["split"].get("repeats") == "rank"


def load_recommender(artifact: Artifact, encoder: str | Path | None = None) -> Recommender:
    """The recommender with all weights in place."""
    return reassemble(artifact, encoder).recommender


def reassemble(artifact: Artifact, encoder: str | Path | None = None) -> Assembled:
    """The recommender with all weights in place, and the parts it was built on."""
    config: dict[str, Any] = artifact.manifest["config"]
    transfer, features = config["transfer"], config["features"]
    num_ids = _num_ids(artifact.path) if features in ("id", "content+id") else 0
    parts, peft = None, None
    if not without_towers(features):
        own = has_own_encoder(transfer)
        parts = EncoderBundle.load(artifact.path / ENCODER) if own else _base(artifact, encoder)
    id_width = width_beside(features, config["bag_of_words"], config["id_width"])
    if has_own_reader(features, transfer, config["user"], id_width):
        shape = SequenceEncoderConfig.from_pretrained(artifact.path / READER)
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
    else:
        _load_head(recommender, artifact.path / HEAD)
    return Assembled(recommender, parts, vocabulary, peft)


def copy_weights(artifact: Artifact, folder: Path) -> None:
    """All that `save_weights` wrote, to a recommender that shares them."""
    for name in WEIGHTS:
        path = artifact.path / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        elif path.exists():
            shutil.copy(path, folder / name)


def _num_ids(folder: Path) -> int:
    """How many items had an id vector in training; a catalog that was extended has more items."""
    path = folder / HEAD
    if not path.exists():
        path = folder / ADAPTER / "adapter_model.safetensors"
    with safe_open(path, "np") as weights:
        names = weights.keys()
        (name,) = (name for name in names if name.endswith("id_vectors.weight"))
        return weights.get_slice(name).get_shape()[0]


def train_counts(folder: str | Path) -> NDArray[np.int64]:
    """How often each item was taken in training, (num_items,); VitrineError where it is not kept."""
    path = Path(folder) / COUNTS_FILE
    if not path.exists():
        raise VitrineError(
            f"{folder} does not say how popular its items were (no {COUNTS_FILE}: an earlier "
            "version made it); fine-tune again"
        )
    return np.load(path, allow_pickle=False)


def _load_head(recommender: nn.Module, path: Path) -> None:
    missing, unexpected = recommender.load_state_dict(load_file(path), strict=False)
    lost = [name for name in missing if not name.startswith("encoder.")]
    if lost or unexpected:
        raise VitrineError(f"{path} does not fit its recommender: {[*lost, *unexpected][:3]}")


def _base(artifact: Artifact, encoder: str | Path | None) -> EncoderBundle:
    """The encoder the artifact was trained on; another one is refused by its hash."""
    if encoder is None:
        return EncoderBundle.load(artifact.parent("encoder"))
    given, parts = open_encoder(encoder)
    check_base(artifact, given)
    return parts


def check_base(artifact: Artifact, base: Artifact) -> None:
    """That `base` is the encoder the recommender was trained on, by its hash; else VitrineError."""
    expected = artifact.manifest["parents"]["encoder"]["hash"]
    if base.hash != expected:
        raise VitrineError(
            f"{artifact.path} was trained on the encoder {expected[:12]}, but {base.path} is "
            f"{base.hash[:12]}; pass the encoder it was trained on"
        )


def check_ids(artifact: Artifact, catalog: Catalog) -> None:
    """That the artifact's items are this catalog's, in its order; else VitrineError."""
    import pyarrow.parquet as pq

    ids = pq.read_table(artifact.path / IDS_FILE)["item_id"].to_pylist()
    theirs = list(catalog.items["item_id"])
    if ids == theirs:
        return
    different = sorted(set(ids) ^ set(theirs)) or ["(same ids, another order)"]
    raise VitrineError(
        f"{artifact.path} was made for another catalog than {catalog.folder}: "
        f"{len(different)} item ids differ, e.g. {', '.join(different[:3])}; "
        "pass the catalog it was trained on, let it rank this one's items (vitrine extend), or "
        "fine-tune again"
    )


def catalog_settings(recommender: str | Path) -> tuple[CatalogConfig, SplitConfig]:
    """The catalog and split that a recommender was trained on, from its manifest."""
    if not str(recommender):
        raise VitrineError(
            "no recommender given; pass the folder that `vitrine finetune` made: --recommender FOLDER"
        )
    folder = Path(recommender)
    kind = SEMANTIC_IDS if read_manifest(folder)["kind"] == SEMANTIC_IDS else "recommender"
    config = open_artifact(folder, kind).manifest["config"]
    return CatalogConfig(**config["catalog"]), SplitConfig(**config["split"])


def read_curves(folder: Path) -> dict[str, list[list[float]]]:
    """An artifact's learning curves: name → [[step, value], …]."""
    return json.loads((folder / "curves.json").read_text())
