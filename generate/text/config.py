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
from generate.config import BatchJobConfig
from pretrain.config import OptimizerConfig, TrainerConfig


def _small_llama() -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 96,
        "intermediate_size": 288,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        # Hugging Face's 0.02 suits widths near 1000; here attention would stay uniform for many steps.
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
    """A Hugging Face causal language model, by name or folder, frozen under LoRA; empty builds one from
    `config`."""
    train: bool = True
    """false: the pretrained model writes by its prompt alone (zero-shot); nothing is trained."""
    model_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """In what the pretrained weights, which stay as they are, are held. auto: bfloat16 where
    `trainer.precision` is bf16, else float32."""
    quantize: Literal["none", "int8"] = "none"
    """int8: the pretrained model's linear layers are held in 8 bits (with torchao), also when it writes."""
    gradient_checkpointing: bool = False
    """Compute each layer of the pretrained model again in the backward pass: less memory, more time."""
    config: dict[str, Any] = field(default_factory=_small_llama)
    """A Hugging Face config as a mapping with `model_type`; used where `model` is empty."""
    vocab_size: PositiveInt = 1024
    """Size of the tokenizer trained on the catalog's texts; used where `model` is empty."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """LoRA of a pretrained model."""
    lora_steps: NonNegativeInt = 0
    """Steps in which LoRA of a pretrained model is trained alone, with user and item conditions dropped
    but for the history as text; then LoRA is frozen and the prefix tokens are trained (CoLLM, Zhang et
    al. 2023). 0: all are trained together."""
    num_user_tokens: NonNegativeInt = 4
    """Prefix tokens projected from the user state."""
    num_item_tokens: NonNegativeInt = 4
    """Prefix tokens projected from the item vector."""
    num_style_tokens: NonNegativeInt = 2
    """User style tokens: prefix tokens computed from the user's earlier reviews; none where the catalog
    has no reviews."""
    prompt: Literal["auto", "facts", "none"] = "auto"
    """What the model reads in words. facts: an instruction, the item's title, category, price, attributes
    and text, the history and earlier reviews, through the model's own chat template where it has one; none:
    soft tokens alone. auto: facts where `model` is set."""
    num_history_items: NonNegativeInt | None = None
    """Items of each history in the prompt: titles of those most similar to the item; where no item is given,
    beginnings of the newest ones' texts. null: 6 with facts, else 0."""
    num_likely_items: NonNegativeInt | None = None
    """Items that the recommender ranks first for the user, in a prompt in words without an item. null: 4 with
    facts, else 0."""
    max_prompt_tokens: PositiveInt | None = None
    """Longest data of the prompt in words, in tokens. null: 384 with facts, else 128."""
    tasks: tuple[str, ...] = ("description", "review")
    """What to learn to write: title, description, headline, keywords, review, reason, or a YAML file of
    your own (see generate/text/tasks); a task for which the catalog has no texts is left out."""
    drop_user: Fraction = 0.1
    """Probability that the user condition of a training text is dropped."""
    drop_item: Fraction = 0.4
    """Probability that the item condition of a training text is dropped; high, so that the user is used."""
    max_tokens: PositiveInt = 64
    """Longest training text, in tokens, its end token included."""
    batch_size: PositiveInt = 32
    """Texts in one step on each device."""
    workers: NonNegativeInt = 0
    """Data loader processes."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=5e-3))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_steps=1000))


JudgeScope = Literal["all", "unrecognized", "words"]
"""What an entailment model judges: all sentences; those in which the fast check recognizes no claim; or these
and, in place of the fast check, those of which it rejects a word."""


@dataclass(frozen=True)
class WriteConfig:
    temperature: NonNegativeFloat = 0.7
    """Sampling temperature; 0 is greedy decoding."""
    top_p: FractionAboveZero = 0.9
    """Nucleus sampling: choose among the most likely tokens that together hold this probability."""
    top_k: NonNegativeInt = 0
    """Choose among this many of the most likely tokens, before top_p; 0: all."""
    max_tokens: PositiveInt = 64
    """Longest text, in tokens."""
    constrain_numbers: bool = False
    """Constrained decoding: the numbers of a text about an item are those of the item's columns."""
    seed: Seed63 = 0
    """The same request with the same seed gives the same text."""
    verify_claims: bool = False
    """Faithfulness: accept only texts whose claims (attribute values, numbers, distinctive words, names,
    materials, properties, certificates) the catalog's texts and reviews support, and with `judge` only
    texts whose sentences they entail. A text with an unsupported claim is generated again; after
    `max_attempts` its supported sentences are kept, or the catalog's own text is the fallback."""
    max_attempts: PositiveInt = 8
    """With `verify_claims`: texts that are generated for one request, at most."""
    engine: Literal["vitrine", "vllm", "openai"] = "vitrine"
    """Inference engine: our own decoder; vLLM on a GPU (the vllm extra); or a hosted model behind an
    OpenAI-compatible endpoint, which reads the facts in words and no soft tokens."""
    base_url: str = ""
    """With engine openai: the endpoint, up to its version; the key is read from OPENAI_API_KEY."""
    hosted_model: str = ""
    """With engine openai: the name of the model there."""
    judge: str = ""
    """With `verify_claims`: an entailment model (NLI, or a fact checker of two labels) of the Hugging Face
    hub, or a folder; each sentence of a text has to follow from what is known of the item."""
    judge_threshold: Fraction = 0.5
    """Least probability of entailment of a sentence."""
    judge_scope: JudgeScope = "all"
    """Sentences that are judged: all; unrecognized, those in which no claim is recognized otherwise; or
    words, these and those of which otherwise a word alone would be rejected, which the judge then decides."""
    judge_label: str = ""
    """The judge's label, or its number from 0, that means entailment; empty where its name says so."""


@dataclass(frozen=True)
class TextBatchConfig(BatchJobConfig):
    task: str = "description"
    """Writing task: title, description, review …, one that the generator was trained on."""
    write: WriteConfig = field(default_factory=WriteConfig)


@dataclass(frozen=True)
class TextScoreConfig:
    num_users: PositiveInt = 500
    """Test targets over which the likelihood of true texts is scored, at most."""
    num_generated: NonNegativeInt = 200
    """Test targets over which generated texts are scored, at most."""
    num_sample_users: NonNegativeInt = 3
    """Users in the tables of samples.md: one column each, with texts about the next items of all of them."""
    text_encoder: str = ""
    """A text encoder of the Hugging Face hub, or a folder, that no generator was conditioned on, to measure
    similarity to items and histories; tf-idf similarity is always measured."""
    ground_truth: str = ""
    """Folder of the demo world's ground truth; empty where it is unknown."""
    seed: Seed63 = 0
    """Seed of the choice of users, of swapped users and of the sampling."""
    write: WriteConfig = field(default_factory=WriteConfig)
    """With `verify_claims`, the fallback rate of verified texts is scored as well."""
    judge: str = ""
    """An entailment model of the hub, or a folder, other than `write.judge`, which measures the share of
    generated sentences that follow from what is known of the item: a filter never grades itself."""
    judge_threshold: Fraction = 0.5
    """Least probability of entailment of a sentence, by `judge`."""
    judge_label: str = ""
    """The label of `judge`, or its number from 0, that means entailment; empty where its name says so."""
