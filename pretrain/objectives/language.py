"""Each token of a text is told from those before it: next-token language modelling (GPT).

For text towers that are decoders. Keeps what a pretrained one knows, and teaches it the shop's words.
"""

from torch import Tensor, nn
from transformers import PreTrainedModel

from catalog.errors import VitrineError
from pretrain.config import ObjectivesConfig
from pretrain.encoder import ItemEncoder
from pretrain.gather import sum_over_ranks, world
from pretrain.objectives.base import Objective, StepOutputs, counted_once


class TiedHead(nn.Linear):
    """Output weights that are the tower's input embeddings."""

    def __init__(self, weight: nn.Parameter) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = None


class NextToken(Objective):
    """Mean over tokens; each item counts once in the whole batch."""

    needs = ("nats",)

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @classmethod
    def build(cls, encoder: ItemEncoder, settings: ObjectivesConfig) -> "NextToken":
        """The encoder's text tower gets a head, and tells how well it did (`ItemVectors.nats`)."""
        if encoder.text is None:
            raise VitrineError("objectives.language tells words, but the encoder has no text tower")
        name, text = encoder.text
        if not text.is_causal or text.about["layer"] != -1:
            raise VitrineError(
                f"objectives.language needs a text tower that reads from left to right, but "
                f"'{text.config.model_type}' sees all tokens at once; set the weight to 0, or take "
                "a decoder such as gpt2 or qwen3, and its last layer"
            )
        tower = encoder.towers[name]
        assert isinstance(tower, PreTrainedModel)
        text.head = TiedHead(tower.get_input_embeddings().weight)  # type: ignore[arg-type]
        return cls(text.head)

    def forward(self, outputs: StepOutputs) -> Tensor:
        assert outputs.nats is not None
        chosen = counted_once(outputs, outputs.nats[:, 1] > 0)
        nats, tokens = (outputs.nats * chosen.unsqueeze(1)).unbind(1)
        total = sum_over_ranks(tokens.detach().sum()).clamp(min=1)
        return nats.sum() * world()[1] / total
