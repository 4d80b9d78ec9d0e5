"""Reads what a sentence-transformers checkpoint says of its use: pooling, normalisation, prompts, length.

The files are those that `SentenceTransformer.save` writes: `modules.json`, the pooling module's
`config.json`, `config_sentence_transformers.json` and `sentence_bert_config.json`.
"""

import json
from dataclasses import dataclass
from typing import Any

from transformers.utils import cached_file  # pyright: ignore[reportPrivateImportUsage]

from catalog.errors import VitrineError
from pretrain.hub import one_line_errors

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "sqrt_mean",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "sqrt_mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""Pooling modes of sentence-transformers → those of `pretrain.towers.pooling`."""
DOCUMENT_PROMPTS = ("document", "passage", "item", "corpus", "text")
"""Names of prompts for the texts that are searched, in order of preference; items are such texts."""


@dataclass(frozen=True)
class SentenceMetadata:
    """What a sentence-transformers checkpoint says of its use."""

    pooling: str
    normalize: bool
    """Whether its vectors have unit length."""
    prompt: str
    """Text that precedes each text."""
    include_prompt: bool
    """Whether the prompt's tokens are pooled."""
    max_tokens: int | None


def read_sentence_metadata(name: str) -> SentenceMetadata | None:
    """The metadata of a Hugging Face name or folder; None where it is no sentence-transformers checkpoint.

    Raises VitrineError for modules that are not run here, since the vectors would be others.
    """
    modules = _read_json(name, "modules.json")
    if not isinstance(modules, list):
        return None
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    others = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if others:
        raise VitrineError(
            f"{name!r} is a sentence-transformers model with {', '.join(others)}, which is not run here; set "
            "pooling to take its Transformer alone"
        )
    pooling: dict[str, Any] = {}
    if "Pooling" in kinds:
        folder = modules[kinds.index("Pooling")].get("path", "1_Pooling")
        pooling = _read_json(name, f"{folder}/config.json") or {}
    config = _read_json(name, "config_sentence_transformers.json") or {}
    length = (_read_json(name, "sentence_bert_config.json") or {}).get("max_seq_length")
    return SentenceMetadata(
        pooling=_pooling_mode(name, pooling),
        normalize="Normalize" in kinds,
        prompt=_document_prompt(config),
        include_prompt=bool(pooling.get("include_prompt", True)),
        max_tokens=length if isinstance(length, int) else None,
    )


def _pooling_mode(name: str, config: dict[str, Any]) -> str:
    modes = [
        key for key, value in config.items() if key.startswith("pooling_mode_") and value is True
    ]
    one = config.get("pooling_mode", [])
    modes = modes or ([one] if isinstance(one, str) else list(one))
    known = [POOLINGS.get(str(mode)) for mode in modes]
    if len(known) > 1 or None in known:
        raise VitrineError(
            f"{name!r} pools by {' and '.join(map(str, modes))}, which is not known here; set pooling"
        )
    return str(known[0]) if known else "mean"


def _document_prompt(config: dict[str, Any]) -> str:
    prompts = config.get("prompts") or {}
    names = [*DOCUMENT_PROMPTS, config.get("default_prompt_name")]
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")


def _read_json(name: str, file: str) -> Any:
    with one_line_errors(f"{file} of {name!r} cannot be read", "name a folder that holds it whole"):
        path = cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            return None
        with open(path, encoding="utf8") as opened:
            return json.load(opened)
