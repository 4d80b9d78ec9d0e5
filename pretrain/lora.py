"""Low-rank updates of a tower's weights while it is pretrained (LoRA, Hu et al., 2022)."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from catalog.errors import VitrineError


def adaptable_layers(model: nn.Module) -> list[str]:
    """Names of the layers that take low-rank updates: the linear ones (GPT-2's Conv1D and fused QKV, too);
    in a tower without any, such as ResNet or EfficientNet, the convolutions over all channels.

    `nn.MultiheadAttention` reads its layers' weights without calling them, so they take none.
    """
    fused = tuple(
        f"{path}."
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    )
    layers = [
        (path, module) for path, module in model.named_modules() if not path.startswith(fused)
    ]
    linear = [path for path, module in layers if isinstance(module, nn.Linear | Conv1D)]
    return linear or [
        path for path, module in layers if isinstance(module, nn.Conv2d) and module.groups == 1
    ]


def add_lora(tower: nn.Module, name: str, rank: int) -> None:
    """Trains updates of rank `rank` in every adaptable layer of the tower instead of its weights."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = adaptable_layers(tower)
    if not layers:
        raise VitrineError(
            f"the tower {name} has no linear layer and no convolution; set its lora_rank to 0"
        )
    tower.requires_grad_(False)
    settings = LoraConfig(r=rank, lora_alpha=4 * rank, target_modules=layers)
    inject_adapter_in_model(settings, tower)  # pyright: ignore[reportArgumentType]
    expose_convolutions(tower)


def expose_convolutions(model: nn.Module) -> None:
    """Gives adapted convolutions the attributes of the layers they wrap, which MobileNet reads to pad."""
    for module in model.modules():
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Conv2d):
            for name in ("stride", "kernel_size", "padding", "dilation", "groups"):
                setattr(module, name, getattr(base, name))


def merge_lora(model: nn.Module) -> None:
    """Merges all low-rank updates into the weights and removes the adapters; a no-op without any."""
    if not any("lora_" in name for name, _ in model.named_parameters()):
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(path, m) for path, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for path, layer in adapted:
        layer.merge()
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
