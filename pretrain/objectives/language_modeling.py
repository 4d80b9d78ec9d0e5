"""Language modelling objective: next-token prediction on item texts (GPT).

For text towers that are decoders: it preserves a pretrained model's knowledge and learns the shop's words.
"""

from torch import Tensor, nn
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from pretrain.config import ObjectivesConfig
from pretrain.distributed import sum_over_ranks, world
from pretrain.encoder import ItemEncoder
from pretrain.objectives.base import Objective, StepOutputs, first_occurrence_mask


class TiedHead(nn.Linear):
    """A language modelling head whose weights are tied to the tower's input embeddings."""

    def __init__(self, weight: nn.Parameter) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = None


class LanguageModeling(Objective):
    """Mean over tokens; each item counts once in the whole batch."""

    needs = ("token_nll",)

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "LanguageModeling":
        """Adds a language modelling head to the encoder's text modality, which then returns `token_nll`."""
        if encoder.text is None:
            raise VitrineError(
                "objectives.language_modeling predicts tokens, but the encoder has no text tower"
            )
        name, text = encoder.text
        if not text.is_causal or text.spec["layer"] != -1:
            raise VitrineError(
                f"objectives.language_modeling needs a text tower that reads from left to right, but "
                f"'{text.config.model_type}' sees all tokens at once; set the weight to 0, or take "
                "a decoder such as gpt2 or qwen3, and its last layer"
            )
        tower = encoder.towers[name]
        assert isinstance(tower, PreTrainedModel)
        text.head = TiedHead(tower.get_input_embeddings().weight)  # type: ignore[arg-type]
        return cls(text.head)

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.token_nll is not None
        chosen = first_occurrence_mask(outputs, outputs.token_nll[:, 1] > 0)
        token_nll, tokens = (outputs.token_nll * chosen.unsqueeze(1)).unbind(1)
        total = sum_over_ranks(tokens.detach().sum()).clamp(min=1)
        return token_nll.sum() * world()[1] / total
