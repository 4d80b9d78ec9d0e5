"""Loads third-party models by a Hugging Face name or folder; errors are reported in one line.

A model's remote code is never run.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from catalog.errors import VitrineError, one_line_message

OWN_CODE = "trust_remote_code"
OFFSET_POSITIONS = {
    *("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "ibert"),
    *("roberta-prelayernorm", "xlm-roberta-xl", "xmod", "esm", "luke"),
}
"""Towers whose positions start after the padding index, as in fairseq."""
TEXTS_TRIED = 200


@contextmanager
def one_line_errors(what: str, remedy: str) -> Iterator[None]:
    """Turns exceptions of other libraries inside the block into VitrineError "`what`: reason; `remedy`"."""
    try:
        yield
    except VitrineError:
        raise
    except (
        Exception
    ) as error:  # libraries raise nearly every kind of exception for a malformed file
        reason = one_line_message(error)
        if OWN_CODE in str(error):
            reason = "it comes with code of its own, which Vitrine does not run"
            remedy = "use a model of a kind that transformers knows by itself"
        raise VitrineError(f"{what}: {reason.rstrip('.')}; {remedy}") from error


def _reading(what: str, name: str) -> AbstractContextManager[None]:
    return one_line_errors(
        f"{what} {name!r} cannot be loaded",
        "name a folder that holds it, or a model of the Hugging Face hub that is in reach",
    )


def read_config(name: str) -> PretrainedConfig:
    with _reading("the config of", name):
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


def make_config(values: dict[str, Any], what: str = "tower") -> PretrainedConfig:
    """A config from a mapping with `model_type`."""
    values = dict(values)
    model_type = values.pop("model_type", "")
    if not isinstance(model_type, str) or not model_type:
        raise VitrineError(
            f"a config of a Hugging Face model needs a model_type, such as bert; {values} has none"
        )
    with one_line_errors(
        f"no {what} can be made from a config of model_type '{model_type}'", "mend it"
    ):
        return AutoConfig.for_model(model_type, **values)


def read_model(
    name: str,
    auto: Any = AutoModel,
    what: str = "the model",
    pooler: bool = False,
    **options: Any,
) -> Any:
    """A model with its pretrained weights, in float32 unless `options` override it.

    Raises VitrineError also if weights are missing, which transformers would initialise at random. (A
    pooler's may be missing unless `pooler` says that it is used.)
    """
    options = {"dtype": torch.float32, **options}
    with _reading(what, name):
        model, info = auto.from_pretrained(
            name, trust_remote_code=False, output_loading_info=True, **options
        )
    missing = sorted(key for key in info["missing_keys"] if pooler or "pooler" not in key)
    missing += sorted(str(key) for key in info.get("mismatched_keys", []))
    if missing:
        raise VitrineError(
            f"{what} {name!r} lacks {len(missing)} of the weights of a {type(model).__name__}, such as "
            f"{missing[0]}, which would begin at random; name a checkpoint of that model"
        )
    return model


def build_model(config: PretrainedConfig, auto: Any = AutoModel, **options: Any) -> PreTrainedModel:
    """An untrained model of a class of transformers or one of its Auto classes, in float32 unless `options`
    override it, in whichever precision its config says it was stored."""
    options = {"dtype": torch.float32, **options}
    with one_line_errors(
        f"no {config.model_type} can be built from its config", "change the config"
    ):
        if issubclass(auto, PreTrainedModel):
            return auto._from_config(config, **options)
        return auto.from_config(config, trust_remote_code=False, **options)


def read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    with _reading("the tokenizer of", name):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, texts: Iterable[str], vocab_size: int | None
) -> None:
    """Raises VitrineError unless the tokenizer knows words of `texts`, and the model `name` all its tokens.

    For a checkpoint without tokenizer files transformers returns an empty tokenizer, which encodes every
    text alike.
    """
    tried = list(islice((text for text in texts if text.strip()), TEXTS_TRIED))
    unknown: Any = tokenizer.unk_token_id
    special = {*tokenizer.all_special_ids, unknown}
    with one_line_errors(
        f"the tokenizer of {name!r} reads no text", "name a folder that holds one"
    ):
        encoded = tokenizer([text[:1000] for text in tried])["input_ids"] if tried else []
        read: list[list[int]] = encoded  # pyright: ignore[reportAssignmentType]
    if tried and not any(set(row) - special for row in read):
        raise VitrineError(
            f"the tokenizer of {name!r} knows no word of the catalog's texts (such as {tried[0][:40]!r}); "
            "name a model that comes with a tokenizer (tokenizer.json) for this language"
        )
    if vocab_size is not None and len(tokenizer) > vocab_size:
        raise VitrineError(
            f"the tokenizer of {name!r} has {len(tokenizer):,} tokens, but its model only {vocab_size:,}; "
            "name a model with its own tokenizer"
        )


def num_positions(config: PretrainedConfig) -> int | None:
    """The most tokens a tower can read; None where its positions are relative."""
    places = getattr(config, "max_position_embeddings", None)
    if not isinstance(places, int) or places <= 0:
        return None
    if config.model_type in OFFSET_POSITIONS:
        places -= (getattr(config, "pad_token_id", None) or 0) + 1
    return places


def check_length(config: PretrainedConfig, max_tokens: int) -> None:
    """Raises VitrineError if the tower has fewer positions than `max_tokens`."""
    places = num_positions(config)
    if places is not None and max_tokens > places:
        raise VitrineError(
            f"max_tokens is {max_tokens}, but the tower ({config.model_type}) has {places} "
            f"positions; use {places} or fewer"
        )


def read_feature_extractor(name: str) -> Any:
    """The audio feature extractor of a model."""
    with _reading("the feature extractor of", name):
        return AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
