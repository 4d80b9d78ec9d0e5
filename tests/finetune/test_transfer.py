"""Transfer modes end to end: what is trained, what is stored, and that it comes back the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors import safe_open

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import make_split
from finetune.artifact import load_recommender
from finetune.components import untrained_encoder_config
from finetune.config import FinetuneConfig
from finetune.data import FinetuneBatch
from finetune.module import FinetuneModule, StepSettings
from finetune.ranker import Ranker, load_ranker
from finetune.recommendations import recommend
from finetune.recommender import Recommender
from finetune.run import run_finetuning
from pretrain.artifact import EncoderBundle
from pretrain.config import EmbedConfig, TrainerConfig
from pretrain.embed import run_embedding
from pretrain.embed_items import embed_items
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import load_item_vectors

LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MODES = ["scratch", "zero-shot", "frozen", "lora", "full"]


def build_trainer(config: TrainerConfig, folder: Path, title: str, callbacks: list) -> pl.Trainer:
    return pl.Trainer(
        max_steps=config.max_steps,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.fixture(scope="module")
def runs(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        mode: run_finetuning(replace(settings, transfer=mode), folder / mode, build_trainer)
        for mode in MODES
    }


def ranks_as_it_did(output: Path, config: FinetuneConfig) -> Ranker:
    """The recommender, loaded again, once it has given every test target its place again."""
    catalog = load_catalog(config.catalog)
    shop = load_ranker(output, catalog)
    ranking = shop.rank_targets(catalog, make_split(catalog, config.split).test)
    np.testing.assert_array_equal(ranking.ranks, np.load(output / "test_ranks.npy"))
    return shop


@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_recommender_ranks_the_same(
    mode: str, runs: dict[str, Path], settings: FinetuneConfig
) -> None:
    ranks_as_it_did(runs[mode], settings)


@pytest.mark.parametrize("mode", ["scratch", "full", "lora"])
def test_stored_vectors_are_what_the_loaded_towers_make(
    mode: str, runs: dict[str, Path], settings: FinetuneConfig
) -> None:
    catalog = load_catalog(settings.catalog)
    artifact = open_artifact(runs[mode], kind="recommender")
    recommender = load_recommender(artifact).eval()
    assert recommender.encoder is not None
    base = artifact.path / "encoder"
    tokenizer_home = base if base.exists() else artifact.parent("encoder")
    reader = EncoderBundle.load(tokenizer_home).content_loader(catalog)
    content = np.empty((catalog.num_items, 32), dtype=np.float32)
    embed_items(recommender.encoder, reader, content, progress=False)
    with torch.no_grad():
        made = recommender.adapt(torch.from_numpy(content)).numpy()
    np.testing.assert_allclose(
        made, open_vectors(runs[mode] / "item_vectors.safetensors"), atol=1e-5
    )


def test_vectors_made_before_serve_as_the_start(
    runs: dict[str, Path], settings: FinetuneConfig, tmp_path: Path
) -> None:
    vectors = run_embedding(
        EmbedConfig(encoder=settings.encoder, catalog=settings.catalog), tmp_path / "vectors"
    )
    config = replace(settings, transfer="frozen", vectors=str(vectors))
    for features, other in (("content", runs["frozen"]), ("shuffled", None)):
        changed = replace(config, features=features)
        output = run_finetuning(changed, tmp_path / features, build_trainer)
        if other is None:
            other = run_finetuning(replace(changed, vectors=""), tmp_path / "other", build_trainer)
        np.testing.assert_allclose(
            open_vectors(output / "item_vectors.safetensors"),
            open_vectors(other / "item_vectors.safetensors"),
            atol=1e-5,
        )
    for changes in ({"transfer": "scratch"}, {"modalities": "text"}):
        with pytest.raises(VitrineError, match=r"vectors .* but .*; leave out --vectors"):
            run_finetuning(replace(config, **changes), tmp_path / "refused", build_trainer)
    base = open_artifact(settings.encoder)
    home = load_catalog(CatalogConfig(path=str(Path(settings.catalog.path).parent / "home")))
    with pytest.raises(VitrineError, match="were made with another catalog than"):
        load_item_vectors(vectors, base, home)
    with pytest.raises(VitrineError, match="were made with another encoder than"):
        load_item_vectors(vectors, open_artifact(runs["frozen"]), load_catalog(settings.catalog))


def test_only_what_a_mode_trains_is_stored(runs: dict[str, Path]) -> None:
    size = {
        mode: sum(f.stat().st_size for f in runs[mode].rglob("*.safetensors")) for mode in MODES
    }
    assert size["lora"] < size["full"] / 3
    assert size["frozen"] < size["full"]
    with safe_open(runs["lora"] / "adapter" / "adapter_model.safetensors", "pt") as adapter:
        names = list(adapter.keys())
        assert any("lora_B" in name and adapter.get_tensor(name).abs().sum() > 0 for name in names)
    frozen_towers = [n for n in names if ".towers." in n and "lora_" not in n]
    assert not frozen_towers


def test_trained_share(runs: dict[str, Path]) -> None:
    figures = {
        mode: json.loads((runs[mode] / "manifest.json").read_text())["metrics"] for mode in MODES
    }
    trained = {mode: figures[mode]["trained_parameters"] for mode in MODES}
    assert 0 == trained["zero-shot"] < trained["lora"] < trained["frozen"] < trained["full"]
    assert trained["full"] == figures["full"]["parameters"]


def test_cold_items_are_never_negatives(settings: FinetuneConfig) -> None:
    warm_items = torch.arange(9) < 6
    recommender = Recommender(
        None, SequenceEncoder(SequenceEncoderConfig(width=8)), num_id_embeddings=9
    )
    module = FinetuneModule(recommender, None, warm_items.int(), StepSettings(settings.optimizer))
    module.log = lambda *args, **kwargs: None  # pyright: ignore[reportAttributeAccessIssue]
    items = torch.tensor([[0, 1, 2, 3]])
    module.training_step(FinetuneBatch(items, torch.zeros_like(items), None, {}), 0).backward()
    assert recommender.id_embeddings is not None
    assert recommender.id_embeddings.weight.grad is not None
    pushed = recommender.id_embeddings.weight.grad.abs().sum(dim=1) > 0
    assert pushed.tolist() == warm_items.tolist()


@pytest.mark.parametrize("features", ["id", "random", "shuffled", "content+id"])
def test_controls_run_and_load_again(
    features: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    transfer = "scratch" if features in ("id", "random") else "frozen"
    config = replace(settings, features=features, transfer=transfer)
    run = run_finetuning(config, tmp_path / features, build_trainer)
    shop = load_ranker(run, load_catalog(settings.catalog))
    assert len(shop.rank(np.array([0, 1, 2]), 5)) == 5


def test_ids_have_no_towers_to_transfer(settings: FinetuneConfig, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="use --transfer scratch"):
        run_finetuning(replace(settings, features="id"), tmp_path / "id", build_trainer)


def test_known_unknown_and_new_users_get_recommendations(
    runs: dict[str, Path], settings: FinetuneConfig
) -> None:
    catalog = load_catalog(settings.catalog)
    user = str(catalog.user_ids[0])
    known = recommend(runs["lora"], user=user, k=5)
    assert known.source == "history"
    owned = {catalog.items[int(i)]["item_id"] for i in catalog.interactions.history(0)}
    assert not owned & set(known.item_ids)
    ids = [catalog.items[i]["item_id"] for i in (3, 7)]
    unknown = recommend(runs["lora"], history=",".join(ids), k=5)
    assert unknown.source == "history"
    assert not set(ids) & set(unknown.item_ids)
    assert recommend(runs["lora"], history="", k=5).source == "popularity"
    with pytest.raises(VitrineError, match="nobody"):
        recommend(runs["lora"], user="nobody")
    with pytest.raises(VitrineError, match="not both"):
        recommend(runs["lora"], user=user, history="x")


def test_another_catalog_is_refused_by_its_ids(runs: dict[str, Path], demo_world: Path) -> None:
    other = load_catalog(CatalogConfig(path=str(demo_world / "home")))
    with pytest.raises(VitrineError, match="item ids differ"):
        load_ranker(runs["lora"], other)


def test_targets_the_encoder_was_pretrained_on_are_refused_unless_allowed(
    settings: FinetuneConfig, demo_world: Path, tmp_path: Path
) -> None:
    home = CatalogConfig(path=str(demo_world / "home"))
    zero_shot = replace(settings, catalog=home, transfer="zero-shot")
    same_split = run_finetuning(zero_shot, tmp_path / "same", build_trainer)
    assert open_artifact(same_split).manifest["metrics"]["seen_targets"] == 0
    other_split = replace(zero_shot, split=SplitConfig(kind="leave-one-out"))
    with pytest.raises(VitrineError, match=r"was pretrained on \d+ of the \d+ targets that can be"):
        run_finetuning(other_split, tmp_path / "other", build_trainer)
    assert not (tmp_path / "other").exists()
    allowed = run_finetuning(
        replace(other_split, allow_seen=True), tmp_path / "allowed", build_trainer
    )
    assert open_artifact(allowed).manifest["metrics"]["seen_targets"] > 0


def test_an_encoder_without_an_interaction_sketch_is_refused(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    known = open_artifact(Path(settings.encoder))
    with write_artifact(
        tmp_path / "older",
        kind="encoder",
        config=known.manifest["config"],
        catalog=known.manifest["catalog"],
    ) as staging:
        EncoderBundle.load(known.path).save(staging.path)
    older = replace(settings, encoder=str(tmp_path / "older"), transfer="zero-shot")
    with pytest.raises(
        VitrineError, match=r"does not say what it was pretrained on \(no interaction_sketch"
    ):
        run_finetuning(older, tmp_path / "shop", build_trainer)
    run_finetuning(replace(older, allow_seen=True), tmp_path / "shop", build_trainer)


@pytest.mark.parametrize(
    ("tower", "frozen"),
    [
        ({"model": "a/tower", "frozen": True}, True),
        ({"model": "a/tower", "frozen": False}, False),
        ({"model": "", "frozen": True}, False),
        ({"model": "a/tower", "frozen": True, "lora_rank": 4}, True),
    ],
)
def test_from_scratch_starts_as_pretraining_did(
    tower: dict[str, Any], frozen: bool, settings: FinetuneConfig
) -> None:
    base = open_artifact(Path(settings.encoder))
    encoder = dict(base.manifest["config"]["encoder"])
    encoder["text"] = {**encoder["text"], **tower}
    changed = replace(base, manifest={**base.manifest, "config": {"encoder": encoder}})
    found = untrained_encoder_config(changed).text
    assert found is not None
    assert (found.frozen, found.lora_rank) == (frozen, 0)
