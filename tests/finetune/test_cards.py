"""Encoders and recommenders are good model repositories: their cards are true, and they come back."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from catalog.artifacts import artifact_hash, local_folder, open_artifact
from catalog.catalog import load_catalog
from catalog.errors import VitrineError
from finetune.config import FinetuneConfig
from finetune.extension import extend
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from launch.cli import main
from launch.trainer import build_trainer
from pretrain import ItemEncoder
from pretrain.vector_file import open_vectors

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def runs(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    configs = {
        "lora": settings,
        "full": replace(settings, transfer="full"),
        "id": replace(settings, transfer="scratch", features="id", encoder=""),
    }
    return {n: run_finetuning(c, folder / n, build_trainer) for n, c in configs.items()}


def lines_of(folder: Path) -> str:
    (code,) = CODE.findall((folder / "README.md").read_text())
    return code


def test_the_lines_on_an_encoders_card_load_it(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder.parent)
    found: dict = {}
    exec(lines_of(encoder), found)
    assert isinstance(found["encoder"], ItemEncoder)
    card = ModelCard.load(encoder / "README.md")
    assert card.data.library_name == "vitrine"
    assert card.data.pipeline_tag == "feature-extraction"
    assert "item-encoder" in card.data.tags
    manifest = open_artifact(encoder).manifest
    assert f"{manifest['metrics']['parameters']:,} parameters" in card.text
    assert "(text, image) into one vector of width 32" in card.text
    asked = [name for name in manifest["metrics"] if name.startswith("retrieval/")]
    assert asked
    assert all(f"- {name.removeprefix('retrieval/')}: " in card.text for name in asked)


@pytest.mark.parametrize("name", ["lora", "full", "id"])
def test_the_lines_on_a_recommenders_card_load_it(
    name: str,
    runs: dict[str, Path],
    encoder: Path,
    demo_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where it was downloaded nothing else lies where it lay.
    shutil.copytree(runs[name], tmp_path / name)
    (tmp_path / "wardrobe").symlink_to(demo_world / "wardrobe")
    if name == "lora":
        (tmp_path / "encoder").symlink_to(encoder)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(lines_of(tmp_path / name), found)
    stored = open_vectors(runs[name] / "item_vectors.safetensors")
    np.testing.assert_array_equal(found["ranker"].item_vectors, stored)
    assert len(found["ranker"].rank(np.array([1, 2]), 5)) == 5


def test_a_recommenders_card_tells_the_figures_of_its_manifest(runs: dict[str, Path]) -> None:
    card = ModelCard.load(runs["lora"] / "README.md")
    metrics = open_artifact(runs["lora"]).manifest["metrics"]
    assert f"- NDCG@10: {metrics['test/ndcg@10']:.4f}" in card.text
    assert f"- NDCG@10 of popularity: {metrics['popularity/ndcg@10']:.4f}" in card.text
    named = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert named["Recall@10"] == round(metrics["test/recall@10"], 4)
    assert "lora" in card.data.tags


def test_no_folder_of_this_machine_is_on_a_card(runs: dict[str, Path], encoder: Path) -> None:
    for folder in (encoder, *runs.values()):
        assert str(encoder.parent.parent) not in (folder / "README.md").read_text()


def test_an_extended_recommenders_card_claims_no_figures(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    made = extend(runs["lora"], tmp_path / "more").path
    text = (made / "README.md").read_text()
    assert "Not measured: it was extended to a newer catalog. 80 items are unchanged" in text
    assert "unknown_items='drop'" in lines_of(made)


def test_a_card_may_be_written_on(encoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "README.md").write_text("---\nlicense: mit\n---\n")
    assert open_artifact(copy).hash == artifact_hash(encoder)
    assert "README.md" not in json.loads((encoder / "manifest.json").read_text())["checksums"]
    (copy / "config.json").write_text("{}")
    with pytest.raises(VitrineError, match=r"config\.json differs"):
        open_artifact(copy)


@pytest.fixture
def hub(
    encoder: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What the Hub's client would have fetched before; offline it looks nowhere else."""
    cache = tmp_path / "hub"
    for name, folder in {"encoder": encoder, "shop": runs["lora"]}.items():
        home = cache / f"models--somebody--{name}"
        shutil.copytree(folder, home / "snapshots" / "abc123")
        (home / "refs").mkdir()
        for revision in ("main", "v1"):
            (home / "refs" / revision).write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def test_what_lies_on_the_hub_is_opened_by_its_name(
    hub: Path,
    encoder: Path,
    runs: dict[str, Path],
    settings: FinetuneConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert isinstance(ItemEncoder.from_pretrained("somebody/encoder", cache_dir=hub), ItemEncoder)
    assert open_artifact("hub:somebody/encoder", kind="encoder").hash == artifact_hash(encoder)
    assert local_folder("hub:somebody/encoder@v1").name == "abc123"
    with pytest.raises(VitrineError, match="@v2 cannot be fetched from the Hub"):
        open_artifact("hub:somebody/encoder@v2")
    catalog = load_catalog(settings.catalog)
    ranker = load_ranker("hub:somebody/shop", catalog, "hub:somebody/encoder")
    here = load_ranker(runs["lora"], catalog)
    assert ranker.rank(np.array([3]), 5) == here.rank(np.array([3]), 5)

    config = replace(settings, encoder="hub:somebody/encoder")
    run = run_finetuning(config, tmp_path / "run", build_trainer)
    assert artifact_hash(run) == artifact_hash(runs["lora"])
    assert load_ranker(run, catalog).rank(np.array([3]), 5) == here.rank(np.array([3]), 5)
    asked = ["embed", "--encoder", "hub:somebody/encoder", "--output", str(tmp_path / "vectors")]
    assert main([*asked, "--catalog.path", settings.catalog.path]) == 0
    capsys.readouterr()

    nobodys = ["finetune", "--encoder", "hub:somebody/nothing", "--catalog.path"]
    assert main([*nobodys, settings.catalog.path, "--output", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vitrine: hub:somebody/nothing cannot be fetched from the Hub: ")


def test_what_was_damaged_on_the_way_is_refused(hub: Path) -> None:
    file = hub / "models--somebody--encoder" / "snapshots" / "abc123" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(VitrineError, match=r"model\.safetensors differs from its checksum"):
        open_artifact("hub:somebody/encoder")
