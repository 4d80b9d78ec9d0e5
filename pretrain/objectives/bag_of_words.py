"""Bag-of-words objective: predicts the tokens of an item's text from its fused vector.

Contrastive objectives keep what distinguishes the items of a batch, and next-item prediction what users
choose by; other properties, such as a material, fade. Predicting the words from the fused vector keeps
them, and where modality dropout hides the text they are predicted from the image (as in learning from
captions, Joulin et al., 2016).
"""

from torch import Tensor, nn

from pretrain.config import ObjectivesConfig
from pretrain.distributed import sum_over_ranks, world
from pretrain.encoder import ItemEncoder
from pretrain.objectives.base import Objective, StepOutputs


class BagOfWords(Objective):
    """Cross-entropy of an item's tokens under one softmax over the vocabulary, mean over tokens."""

    needs = ("tokens",)

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.input_scale = width**0.5  # unit vectors → unit variance
        self.linear = nn.Linear(width, vocab_size)

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "BagOfWords":
        assert encoder.text is not None
        _, text = encoder.text
        return cls(encoder.config.width, text.config.vocab_size)

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.tokens is not None
        counted = outputs.tokens >= 0  # (slots, length)
        logits = self.linear(outputs.items * self.input_scale)
        log_chances = logits.log_softmax(dim=-1).gather(1, outputs.tokens.clamp(min=0))
        lengths = counted.sum(dim=1)
        losses = -(log_chances * counted).sum(dim=1) / lengths.clamp(min=1)  # (slots,)
        total = sum_over_ranks((lengths > 0).sum().to(losses.dtype)).clamp(min=1)
        return losses.sum() * world()[1] / total
