"""Leakage check: refuses evaluation targets that the encoder was pretrained on."""

import numpy as np

from catalog.artifacts import Artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.interaction_sketch import SKETCH_FILE, InteractionSketch
from catalog.splits import Split, target_rows
from finetune.config import FinetuneConfig


def count_seen_targets(
    config: FinetuneConfig, base: Artifact, catalog: Catalog, split: Split
) -> int:
    """How many targets the encoder is known to have been pretrained on; VitrineError if not allowed."""
    if not (base.path / SKETCH_FILE).exists():
        if config.allow_seen:
            return 0
        raise VitrineError(
            f"the encoder {config.encoder} does not say what it was pretrained on (no {SKETCH_FILE}), "
            "so nothing shows that the targets are new to it; pretrain it again, or pass "
            "--allow_seen true"
        )
    rows = np.concatenate(
        [target_rows(catalog.interactions, t) for t in (split.validation, split.test)]
    )
    one_shop = base.manifest["catalog"] == catalog.fingerprint
    decidable, seen = InteractionSketch.load(base.path).check(catalog, rows, one_shop)
    if seen.any() and not config.allow_seen:
        rule = (base.manifest["split"] or {}).get("kind")
        raise VitrineError(
            f"the encoder {config.encoder} was pretrained on {int(seen.sum()):,} of the "
            f"{int(decidable.sum()):,} targets that can be checked; figures on them would prove nothing. "
            f"Use the split it was trained with ({rule}: see split in its manifest.json), or pass "
            "--allow_seen true"
        )
    return int(seen.sum())
