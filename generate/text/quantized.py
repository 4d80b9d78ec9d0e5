"""Weights of a pretrained language model in 8 bits: half the memory of bfloat16, under LoRA in float32.

The weights of linear layers are rounded to 255 steps for each output (torchao's weight-only int8, after
Dettmers et al. 2022, LLM.int8, without its outliers), and multiplied in the precision of the inputs. The
embeddings and the output layer stay as they are.
"""

from torch import nn
from transformers import PreTrainedModel

from catalog.errors import VitrineError


def quantize_int8(model: PreTrainedModel, name: str) -> None:
    """Rounds the weights of all linear layers but the output's, in place.

    VitrineError without torchao, and for a model that has no such layers.
    """
    output = model.get_output_embeddings()

    def chosen(module: nn.Module, _: str) -> bool:
        return isinstance(module, nn.Linear) and module is not output

    if not any(chosen(module, "") for module in model.modules()):
        raise VitrineError(
            f"the language model {name!r} has no linear layers that quantize int8 could round (GPT-2 keeps "
            "its matrices otherwise); leave quantize out."
        )
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise VitrineError(
            "quantize int8 needs torchao; install vitrine[quantized], or leave quantize out."
        ) from error
    quantize_(model, Int8WeightOnlyConfig(), chosen)
