"""Assembles components into a recommender and selects what is trained, for every transfer mode."""

from dataclasses import dataclass

from peft import PeftModel

from finetune.bag_of_words import Vocabulary
from finetune.components import Components
from finetune.config import FinetuneConfig
from finetune.lora import add_lora
from finetune.recommender import Recommender
from finetune.transfer import set_trainable
from pretrain.artifact import EncoderBundle


@dataclass
class AssembledRecommender:
    """A recommender with the encoder bundle it uses and, with LoRA, PEFT's wrapper that saves its adapter."""

    recommender: Recommender
    parts: EncoderBundle | None
    vocabulary: Vocabulary | None
    peft: PeftModel | None = None


def assemble(
    components: Components, config: FinetuneConfig, num_items: int
) -> AssembledRecommender:
    """The recommender for training, with `requires_grad` or LoRA set by the transfer mode."""
    num_ids = num_items if config.features in ("id", "content+id") else 0
    parts, vocabulary = components.parts, components.vocabulary
    encoder = None if parts is None else parts.encoder
    num_words = 0 if vocabulary is None else len(vocabulary.words)
    recommender = Recommender(encoder, components.history, num_ids, components.id_width, num_words)
    if config.transfer != "lora":
        set_trainable(recommender, config.transfer)
        return AssembledRecommender(recommender, parts, vocabulary)
    peft = add_lora(recommender, components, config.lora)
    return AssembledRecommender(recommender, parts, vocabulary, peft)
