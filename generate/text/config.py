"""Settings of the text generator; imports no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from catalog.config import (
    CatalogConfig,
    Fraction,
    FractionAboveZero,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed63,
    SplitConfig,
)
from finetune.config import LoraConfig
from pretrain.config import OptimizerConfig, TrainerConfig


def _small_llama() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 96,
        "intermediate_size": 288,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        # Hugging Face's 0.02 suits widths near 1000; here attention would take long to wake.
        "initializer_range": 0.08,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    }


@dataclass(frozen=True)
class TextConfig:
    recommender: str = ""
    """Folder of a recommender artifact."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    """Only the training part of each history is read."""
    model: str = ""
    """A Hugging Face causal language model, by name or folder, kept frozen under LoRA; empty builds
    from `config`."""
    config: dict[str, Any] = field(default_factory=_small_llama)
    """A Hugging Face config as a mapping with `model_type`; used where `model` is empty."""
    vocab_size: PositiveInt = 1024
    """Size of the tokenizer trained on the catalog's words; used where `model` is empty."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank updates of a pretrained model."""
    lora_steps: NonNegativeInt = 0
    """Of a pretrained model: so many steps in which its updates learn alone, person and item hidden but
    for what is told in words; then they rest, and the prefix tokens learn (CoLLM, Zhang et al. 2023).
    0: all learn together."""
    num_user_tokens: NonNegativeInt = 4
    """Prefix tokens made from the user state."""
    num_item_tokens: NonNegativeInt = 4
    """Prefix tokens made from the item vector."""
    num_voice_tokens: NonNegativeInt = 2
    """Prefix tokens made from what the person said before; none where the catalog has no reviews."""
    history_items: NonNegativeInt = 0
    """Of each history so many items are told in words too, those most like the item; for models large
    enough to read them."""
    history_tokens: PositiveInt = 128
    """Tokens kept of what is told in words."""
    tasks: tuple[str, ...] = ("description", "review")
    """What to learn to write: title, description, headline, keywords, review, reason, or a YAML file of
    your own (see generate/text/tasks); a task the catalog has no words for is left out."""
    drop_user: Fraction = 0.1
    """Chance that a training text hides its person."""
    drop_item: Fraction = 0.4
    """Chance that a training text hides its item, so that the person must explain it."""
    max_tokens: PositiveInt = 64
    """Tokens kept of each text, its end included."""
    batch_size: PositiveInt = 32
    """Texts in one step on each device."""
    workers: NonNegativeInt = 0
    """Loader processes."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=5e-3))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_steps=1000))


@dataclass(frozen=True)
class WriteConfig:
    temperature: NonNegativeFloat = 0.7
    """Above 1 flattens, below 1 sharpens each choice of a token; 0 always takes the likeliest."""
    top_p: FractionAboveZero = 0.9
    """Choose among the likeliest tokens that together hold this share of the probability."""
    max_tokens: PositiveInt = 64
    """Longest text, in tokens."""
    seed: Seed63 = 0
    """The same request with the same seed gives the same words."""
    strict: bool = False
    """Only what the catalog bears out: values, numbers and telling words of its texts and reviews. A
    text that claims anything else is tried anew; in the end those of its sentences are left that hold,
    or the catalog's own words are taken."""
    tries: PositiveInt = 8
    """Texts that are written for one request, at most, with strict."""
    engine: Literal["vitrine", "vllm"] = "vitrine"
    """What writes: our own decoder, or vLLM on a GPU (the vllm extra)."""


@dataclass(frozen=True)
class BulkConfig:
    generator: str = ""
    """Folder of a text-generator artifact."""
    recommender: str = ""
    """One extended from the recommender it was trained with, to know its items."""
    task: str = "description"
    """What to write."""
    items: str = "top:3"
    """About what: each person's so many best items, or ids with commas between."""
    users: str = ""
    """For whom: a file with an id on each line; empty: everybody."""
    write: WriteConfig = field(default_factory=WriteConfig)


@dataclass(frozen=True)
class ScoreConfig:
    people: PositiveInt = 500
    """Test targets over which true texts are scored, at most."""
    written: NonNegativeInt = 200
    """And over which texts are written, at most."""
    samples: NonNegativeInt = 3
    """People side by side in samples.md, each about the next item of each."""
    judge: str = ""
    """A text encoder on the Hugging Face hub, or a folder, that nothing was conditioned on, to say how
    near words are to items and histories; shared words say so in any case."""
    truth: str = ""
    """Folder of the demo world's truth; empty where nobody knows it."""
    seed: Seed63 = 0
    """Chooses people, strangers and noise."""
    write: WriteConfig = field(default_factory=WriteConfig)
    """strict: what is left when only what the catalog bears out may be said is scored too."""
