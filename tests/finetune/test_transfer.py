"""Transfer modes end to end: what is trained, what is stored, and that it comes back the same."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors import safe_open
from transformers import AutoModel

from catalog.artifacts import is_complete, open_artifact, write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import NonFiniteError, VitrineError
from catalog.splits import make_split
from finetune.artifact import load_recommender
from finetune.cache import CacheRefresh
from finetune.components import build_components, untrained_encoder_config
from finetune.config import FinetuneConfig, FinetuneDataConfig
from finetune.data import FinetuneBatch
from finetune.module import FinetuneModule
from finetune.ranker import Ranker, load_ranker
from finetune.recommendations import recommend
from finetune.recommender import Adaptor, Recommender
from finetune.run import run_finetuning
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import EmbedConfig, SequenceConfig, TrainerConfig
from pretrain.embed import run_embedding
from pretrain.embed_items import embed_items
from pretrain.hub import make_config
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import load_item_vectors
from pretrain.work import learned_request

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
def test_loaded_again_it_ranks_as_it_did(
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


@pytest.mark.parametrize("seed", range(40))
def test_whitened_properties_are_equally_loud(seed: int) -> None:
    torch.manual_seed(seed)
    loudness = torch.tensor([10.0, 1.0, 0.5, 0.0])
    vectors = torch.randn(500, 4) * loudness @ torch.linalg.qr(torch.randn(4, 4))[0] + 7
    adaptor = Adaptor(4)
    adaptor.whiten(vectors)
    with torch.no_grad():
        variances = torch.linalg.eigvalsh(torch.cov(adaptor(vectors).double().T))
    spread = variances.clamp(min=0).sqrt()  # an eigenvalue of 0 may round below it
    assert spread[0] < 0.01  # what never varies is not made of noise
    assert 0.8 < spread[1] <= spread[3] < 1.01


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_vectors_without_any_variance_are_not_whitened(noise: float) -> None:
    vectors = torch.nn.functional.normalize(torch.ones(30, 8), dim=-1) + noise * torch.randn(30, 8)
    with pytest.raises(NonFiniteError, match=r"content vectors of all 30 items are the same"):
        Adaptor(8).whiten(vectors)
    with pytest.raises(
        NonFiniteError, match=r"two or more finite content vectors; there are 1 among 2"
    ):
        Adaptor(2).whiten(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]))


def test_what_nobody_took_in_training_is_no_negative(settings: FinetuneConfig) -> None:
    warm_items = torch.arange(9) < 6
    recommender = Recommender(
        None, SequenceEncoder(SequenceEncoderConfig(width=8)), num_id_vectors=9
    )
    module = FinetuneModule(recommender, None, warm_items.int(), settings.optimizer)
    module.log = lambda *args, **kwargs: None  # pyright: ignore[reportAttributeAccessIssue]
    items = torch.tensor([[0, 1, 2, 3]])
    module.training_step(FinetuneBatch(items, torch.zeros_like(items), None, {}), 0).backward()
    assert recommender.id_vectors is not None
    assert recommender.id_vectors.weight.grad is not None
    pushed = recommender.id_vectors.weight.grad.abs().sum(dim=1) > 0
    assert pushed.tolist() == warm_items.tolist()


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
    from catalog.artifacts import write_artifact

    catalog = load_catalog(settings.catalog)
    wanted = untrained_encoder_config(open_artifact(Path(settings.encoder)))
    with write_artifact(
        folder / "other", kind="encoder", config={}, catalog=catalog.fingerprint
    ) as staging:
        new_encoder(wanted, catalog).save(staging.path)
    return folder / "other"


@pytest.mark.parametrize("features", ["id", "random", "shuffled", "content+id"])
def test_controls_run_and_come_back(
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


def test_the_known_the_unknown_and_the_new(runs: dict[str, Path], settings: FinetuneConfig) -> None:
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


def test_an_encoder_that_does_not_say_what_it_saw_is_refused(
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
    with pytest.raises(VitrineError, match=r"does not say what it was pretrained on \(no seen"):
        run_finetuning(older, tmp_path / "shop", build_trainer)
    run_finetuning(replace(older, allow_seen=True), tmp_path / "shop", build_trainer)


@pytest.mark.parametrize("transfer", ["frozen", "lora", "full", "scratch"])
@pytest.mark.parametrize("reader", ["hstu", "decoder", "pretrained decoder"])
def test_any_reader_of_histories_comes_back_as_it_ranked(
    reader: str, transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    user = SequenceConfig(layers=1, heads=2, max_history=6, block="hstu")
    if reader != "hstu":
        user = replace(user, block="attention", decoder=LLAMA)
    if reader == "pretrained decoder":
        torch.manual_seed(5)
        AutoModel.from_config(make_config({**LLAMA, "vocab_size": 9})).save_pretrained(
            tmp_path / "m"
        )
        user = replace(user, decoder={}, model=str(tmp_path / "m"))
    config = replace(settings, user=user, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    shop = ranks_as_it_did(output, settings)
    assert shop.max_history == 6
    if transfer == "lora" and reader == "pretrained decoder":
        with safe_open(output / "adapter" / "adapter_model.safetensors", "pt") as adapter:
            stored = list(adapter.keys())
            names = [name for name in stored if "decoder.model" in name]
            assert names
            assert all("lora_" in n for n in names), "what it brought is not stored again"


@pytest.mark.parametrize("transfer", ["scratch", "frozen", "lora", "full"])
def test_ids_may_stand_beside_content(
    transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="content+id", id_width=8, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    shop = ranks_as_it_did(output, settings)
    assert shop.width == 40
    vectors = torch.from_numpy(np.array(shop.item_vectors))
    content, ids = vectors[:, :32].norm(dim=1), vectors[:, 32:].norm(dim=1)
    torch.testing.assert_close(content, ids)
    sampled = replace(config, loss="sampled", negatives=9)
    run_finetuning(sampled, tmp_path / "sampled", build_trainer)


def test_ids_alone_need_no_encoder(demo_world: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        transfer="scratch",
        features="id",
        width=16,
        sequence=SequenceConfig(layers=1, heads=2, max_history=5),
        dropout=0.4,
        data=FinetuneDataConfig(rows=2),
        trainer=TrainerConfig(max_steps=2, progress=False),
    )
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    shop = ranks_as_it_did(output, config)
    assert shop.width == 16
    with pytest.raises(VitrineError, match="no encoder given; pass the folder"):
        run_finetuning(replace(config, features="content"), tmp_path / "other", build_trainer)


@pytest.mark.parametrize("loss", ["sampled", "in-batch"])
@pytest.mark.parametrize("transfer", ["frozen", "lora"])
def test_a_sample_stands_in_for_the_catalog(
    loss: str, transfer: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, loss=loss, negatives=20, transfer=transfer)
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    losses = [value for _, value in json.loads((output / "curves.json").read_text())["loss"]]
    assert np.isfinite(losses).all()


def test_dropout_can_be_set_for_a_pretrained_reader(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    components = build_components(replace(settings, dropout=0.7), catalog)
    rates = {m.p for m in components.history.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.7}


@pytest.mark.parametrize(
    ("encoders", "modules", "expected"),
    [
        ("image", "", {"image"}),
        ("text,sequence", "", {"text", "history"}),
        ("", "query,q_proj", {"text", "image", "history"}),
        ("text", "attention.output.dense", {"text"}),
    ],
)
def test_low_rank_updates_are_where_they_are_asked_for(
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
def test_low_rank_updates_that_cannot_be_are_refused(
    lora: dict[str, str], message: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    changed = replace(settings, lora=replace(settings.lora, **lora))
    with pytest.raises(VitrineError, match=message):
        run_finetuning(changed, tmp_path / "shop", build_trainer)


def test_a_new_reader_of_histories_has_no_low_rank_updates(
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


def test_auto_keeps_whichever_ranks_validation_better(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="auto", validate_every=1)
    output = run_finetuning(config, tmp_path / "auto", build_trainer)
    manifest = open_artifact(output).manifest
    figures: dict[str, float] = manifest["metrics"]
    reached = {n: figures[f"validation_ndcg@10/{n}"] for n in ("content", "content+id")}
    chosen = manifest["config"]["features"]
    assert figures["validation_ndcg@10"] == reached[chosen] == max(reached.values())
    for features, value in reached.items():
        alone = replace(config, features=features)
        run = run_finetuning(alone, tmp_path / features, build_trainer)
        assert open_artifact(run).manifest["metrics"]["validation_ndcg@10"] == value
        if features == chosen:
            np.testing.assert_array_equal(
                open_vectors(output / "item_vectors.safetensors"),
                open_vectors(run / "item_vectors.safetensors"),
            )
    ranks_as_it_did(output, replace(config, features=chosen))
    asked = learned_request(
        "recommender", asdict(config), {"encoder": config.encoder}, manifest["catalog"]
    )
    assert is_complete(output, asked), "asked for again, nothing is trained again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer": "zero-shot"}, "zero-shot trains nothing; use --features content or"),
        ({"trainer": TrainerConfig(strategy="zero3")}, "zero3 keeps no best weights"),
        ({"split": SplitConfig(min_history=16)}, "no validation targets, and auto chooses"),
    ],
)
def test_auto_says_where_it_cannot_choose(
    changes: dict[str, Any], message: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="auto", **changes)
    with pytest.raises(VitrineError, match=message):
        run_finetuning(config, tmp_path / "auto", build_trainer)


@pytest.mark.parametrize(("every", "validate_every", "readings"), [(0, 2, 2), (1, 2, 4), (3, 4, 2)])
def test_the_cache_is_read_anew_as_often_as_asked(
    every: int,
    validate_every: int,
    readings: int,
    settings: FinetuneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    once = CacheRefresh.__call__

    def counted(self: CacheRefresh, module: FinetuneModule, step: int = -1) -> None:
        read.append(step)
        once(self, module, step)

    monkeypatch.setattr(CacheRefresh, "__call__", counted)
    data = replace(settings.data, refresh_every=every)
    config = replace(settings, data=data, validate_every=validate_every)
    run_finetuning(config, tmp_path / "run", build_trainer)
    assert read[-1] == -1, "what is stored is what the best weights make"
    assert len(read) == readings + 1
    assert len(set(read)) == len(read), "twice at the same step"


def test_a_cache_cannot_be_read_less_than_never(settings: FinetuneConfig, tmp_path: Path) -> None:
    data = replace(settings.data, refresh_every=-1)
    with pytest.raises(VitrineError, match="refresh_every is -1; give 0 or more"):
        run_finetuning(replace(settings, data=data), tmp_path / "run", build_trainer)


@pytest.mark.parametrize(
    ("tower", "frozen"),
    [
        ({"model": "a/tower", "frozen": True}, True),
        ({"model": "a/tower", "frozen": False}, False),
        ({"model": "", "frozen": True}, False),
        ({"model": "a/tower", "frozen": True, "lora_rank": 4}, True),
    ],
)
def test_from_scratch_begins_as_pretraining_did(
    tower: dict[str, Any], frozen: bool, settings: FinetuneConfig
) -> None:
    base = open_artifact(Path(settings.encoder))
    encoder = dict(base.manifest["config"]["encoder"])
    encoder["text"] = {**encoder["text"], **tower}
    changed = replace(base, manifest={**base.manifest, "config": {"encoder": encoder}})
    found = untrained_encoder_config(changed).text
    assert found is not None
    assert (found.frozen, found.lora_rank) == (frozen, 0)
