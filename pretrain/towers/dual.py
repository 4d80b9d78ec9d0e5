"""Dual encoders (CLIP, SigLIP, CLAP) as one thing: both halves, with their projections to one space."""

from collections.abc import Mapping

from transformers import PretrainedConfig

from catalog.errors import VitrineError
from pretrain.config import ModalityConfig
from pretrain.hub import read_config
from pretrain.towers.build import PARTS, is_dual, part_of


def check_dual(name: str, modalities: Mapping[str, ModalityConfig]) -> None:
    """Raises VitrineError unless `name` is a dual encoder with a half for each modality that takes it, and
    each of them reads that half's own embedding."""
    config = read_config(name)
    halves = [kind for kind, part in PARTS.items() if _has(config, part)]
    if not any(is_dual(part_of(config, kind)) for kind in halves):
        raise VitrineError(
            f"encoder.dual is {name!r} ({config.model_type}), which is no dual encoder such as CLIP or "
            "SigLIP; name one, or set encoder.text.model and encoder.image.model"
        )
    users = {key: modality for key, modality in modalities.items() if modality.model == name}
    for key, modality in users.items():
        if modality.kind not in halves:
            raise VitrineError(
                f"encoder.dual is {name!r} ({config.model_type}), which has no {modality.kind} tower, but "
                f"{key} needs one; set encoder.{key} to null, or its model"
            )
        if modality.pooling not in ("auto", "embedding"):
            raise VitrineError(
                f"the pooling of {key} is {modality.pooling}, but encoder.dual reads each half's own "
                "embedding; leave pooling out, or name the towers one by one"
            )
    if len(users) < 2:
        raise VitrineError(
            f"encoder.dual is {name!r}, but it encodes {' and '.join(users) or 'no modality'} alone; it "
            f"takes two of {', '.join(halves)}"
        )


def _has(config: PretrainedConfig, part: str) -> bool:
    return isinstance(getattr(config, part, None), PretrainedConfig)
