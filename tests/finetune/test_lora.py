"""LoRA: low-rank updates are in the encoders and layers that settings name, and only in pretrained ones."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import load_catalog
from catalog.errors import VitrineError
from finetune.artifact import load_recommender
from finetune.components import untrained_encoder_config
from finetune.config import FinetuneConfig
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from pretrain.artifact import new_encoder
from tests.finetune.test_transfer import build_trainer, ranks_as_it_did


@pytest.fixture(scope="module")
def runs(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lora")
    return {"lora": run_finetuning(replace(settings, transfer="lora"), folder, build_trainer)}


def test_an_adapter_merged_gives_the_same_vectors(runs: dict[str, Path]) -> None:
    recommender = load_recommender(open_artifact(runs["lora"])).eval()
    vectors = torch.nn.functional.normalize(torch.randn(2, 5, 32), dim=-1)
    segments = torch.zeros(2, 5, dtype=torch.int64)
    with torch.no_grad():
        before = recommender.history(vectors, segments)
        for module in recommender.modules():
            if hasattr(module, "merge") and hasattr(module, "lora_A"):
                module.merge()
        after = recommender.history(vectors, segments)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)


def test_an_adapter_refuses_another_base(
    runs: dict[str, Path], settings: FinetuneConfig, encoder: Path, tmp_path: Path
) -> None:
    catalog = load_catalog(settings.catalog)
    assert load_ranker(runs["lora"], catalog, encoder) is not None
    other = replace_encoder(settings, tmp_path)
    with pytest.raises(
        VitrineError, match=r"was trained on the encoder .* but .*; pass the encoder"
    ):
        load_ranker(runs["lora"], catalog, other)


def replace_encoder(settings: FinetuneConfig, folder: Path) -> Path:
    """Another encoder artifact of the same shape."""

    catalog = load_catalog(settings.catalog)
    wanted = untrained_encoder_config(open_artifact(Path(settings.encoder)))
    with write_artifact(
        folder / "other", kind="encoder", config={}, catalog=catalog.fingerprint
    ) as staging:
        new_encoder(wanted, catalog).save(staging.path)
    return folder / "other"


@pytest.mark.parametrize(
    ("encoders", "modules", "expected"),
    [
        ("image", "", {"image"}),
        ("text,sequence", "", {"text", "history"}),
        ("", "query,q_proj", {"text", "image", "history"}),
        ("text", "attention.output.dense", {"text"}),
    ],
)
def test_low_rank_updates_are_in_the_configured_layers(
    encoders: str, modules: str, expected: set[str], settings: FinetuneConfig, tmp_path: Path
) -> None:
    lora = replace(settings.lora, target_encoders=encoders, target_modules=modules)
    changed = replace(settings, lora=lora)
    output = run_finetuning(changed, tmp_path / "shop", build_trainer)
    with safe_open(output / "adapter" / "adapter_model.safetensors", "np") as weights:
        names = [name for name in list(weights.keys()) if "lora_" in name]
    places = {
        place
        for name in names
        for place in ("text", "image", "history")
        if f".{place}." in name.replace("towers.", "")
    }
    assert places == expected
    for end in modules.split(",") if modules else []:
        assert any(f".{end}.lora_A" in name for name in names)
    if modules:
        ends = tuple(f".{end}" for end in modules.split(","))
        assert all(name.split(".lora_")[0].endswith(ends) for name in names)
    ranks_as_it_did(output, changed)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"target_encoders": "txt"},
            r"lora.target_encoders names 'txt', which the encoder does not read. Did you mean",
        ),
        (
            {"target_modules": "quary"},
            r"lora.target_modules names 'quary', but no linear layer ends so; there are",
        ),
    ],
)
def test_unknown_lora_targets_are_refused(
    lora: dict[str, str], message: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    changed = replace(settings, lora=replace(settings.lora, **lora))
    with pytest.raises(VitrineError, match=message):
        run_finetuning(changed, tmp_path / "shop", build_trainer)


def test_a_new_sequence_encoder_has_no_low_rank_updates(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="content+id", id_width=8)
    alone = replace(config, lora=replace(settings.lora, target_encoders="sequence"))
    with pytest.raises(
        VitrineError, match=r"is new here and trained whole; name one of text, image"
    ):
        run_finetuning(alone, tmp_path / "alone", build_trainer)
    both = replace(config, lora=replace(settings.lora, target_encoders="sequence,image"))
    output = run_finetuning(both, tmp_path / "both", build_trainer)
    with safe_open(output / "adapter" / "adapter_model.safetensors", "np") as weights:
        names = list(weights.keys())
    assert any(".history." in name for name in names)
    assert not any(".history." in name and "lora_" in name for name in names)
