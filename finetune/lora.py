"""LoRA for a recommender: which linear layers get low-rank updates, and which modules train whole."""

from collections.abc import Collection

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model

from catalog.errors import VitrineError, did_you_mean
from finetune.components import Components
from finetune.config import LoraConfig
from finetune.recommender import Recommender
from pretrain.lora import adaptable_layers, expose_convolutions

MODULES_TO_SAVE = ["adaptor", "gate", "mean_residual", "temperature"]
"""Small modules that are trained whole beside LoRA (PEFT's `modules_to_save`): no low rank to exploit."""


def add_lora(recommender: Recommender, components: Components, lora: LoraConfig) -> PeftModel:
    """Injects LoRA layers into `recommender` in place; returns PEFT's wrapper, which saves the adapter."""
    modules = [
        *MODULES_TO_SAVE,
        *(["id_embeddings"] if recommender.id_embeddings is not None else []),
        *(["bag_of_words"] if recommender.bag_of_words is not None else []),
    ]
    if components.own_sequence_encoder and components.history.config.model:
        modules += ["history.norm", "decoder.into", "decoder.out_of"]
    elif components.own_sequence_encoder:
        modules.remove("mean_residual")
        modules.append("history")
    settings = PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_target_modules(components, recommender, lora),
        modules_to_save=modules,
    )
    adapted = get_peft_model(recommender, settings)  # pyright: ignore[reportArgumentType]
    expose_convolutions(recommender)
    return adapted


def lora_target_modules(
    components: Components, recommender: Recommender, lora: LoraConfig
) -> list[str]:
    """Names of the linear layers with low-rank updates; VitrineError if none matches the settings.

    A new sequence encoder has none: a low-rank update needs pretrained weights, so it trains whole.
    """
    encoder = recommender.encoder
    prefixes: dict[str, list[str]] = {}
    if encoder is not None:
        for name in encoder.modalities:
            prefixes[name] = [f"encoder.towers.{encoder.tower_name(name)}."]
    new = components.own_sequence_encoder and not components.history.config.model
    pretrained = "history.decoder.model." if components.own_sequence_encoder else "history."
    prefixes["sequence"] = [] if new else [pretrained]
    selected = selected_encoders(lora.target_encoders, prefixes)
    layers = layers_below(recommender, *(prefix for name in selected for prefix in prefixes[name]))
    if not layers:
        raise VitrineError(
            f"lora.target_encoders names {lora.target_encoders!r} alone, which is new here and trained "
            f"whole; name one of {', '.join(name for name, found in prefixes.items() if found)}, too"
        )
    suffixes = [suffix.strip() for suffix in lora.target_modules.split(",") if suffix.strip()]
    for suffix in suffixes:
        if not any(f".{name}".endswith(f".{suffix}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers})
            raise VitrineError(
                f"lora.target_modules names {suffix!r}, but no linear layer ends so; there are "
                f"{', '.join(known)}"
            )
    if suffixes:
        ends = tuple(f".{suffix}" for suffix in suffixes)
        layers = [name for name in layers if f".{name}".endswith(ends)]
    return layers


def selected_encoders(target_encoders: str, known: Collection[str]) -> list[str]:
    """The names in `lora.target_encoders`, all if it is empty; VitrineError for an unknown one."""
    names = [name.strip() for name in target_encoders.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise VitrineError(
                f"lora.target_encoders names {name!r}, which the encoder does not read."
                f"{did_you_mean(name, known)}"
            )
    return names or list(known)


def layers_below(recommender: Recommender, *prefixes: str) -> list[str]:
    """Names of the layers below `prefixes` that take low-rank updates: q, k, v, o and MLP of transformers."""
    found = [
        f"{prefix}{name}"
        for prefix in prefixes
        for name in adaptable_layers(recommender.get_submodule(prefix.rstrip(".")))
    ]
    return list(dict.fromkeys(found))  # two modalities may share a tower
