"""The image stage from end to end, with a recommender that never was trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from catalog.artifacts import open_artifact, write_artifact
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from generate.image import load_image_sampler, run_image_generator, sample_image
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.watermark import THRESHOLD, detect_watermark
from generate.provenance import verify
from pretrain.config import TrainerConfig

WIDTH = 8


class FakeRanker:
    def __init__(self, num_items: int) -> None:
        vectors = np.random.default_rng(0).normal(size=(num_items, WIDTH))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.width = WIDTH
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> torch.Tensor:
        states = [self.item_vectors[history].sum(axis=0) for history in histories]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(states)), dim=-1)


def build_trainer(config: TrainerConfig, folder: Path, title: str, callbacks=()) -> pl.Trainer:
    return pl.Trainer(
        max_steps=config.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        accumulate_grad_batches=config.accumulate,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


@pytest.fixture
def config(demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageConfig:
    with write_artifact(tmp_path / "recommender", "recommender") as staging:
        (staging / "note.txt").write_text("stands in for a trained one")

    def load_ranker(folder: Path, catalog, **_: Any) -> FakeRanker:
        return FakeRanker(catalog.num_items)

    monkeypatch.setattr("generate.image.run.load_ranker", load_ranker)
    monkeypatch.setattr("generate.ranker.load_ranker", load_ranker)
    return ImageConfig(
        recommender=str(tmp_path / "recommender"),
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        sampling=SamplingConfig(steps=2),
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, log_every=1),
    )


def test_the_stage_writes_an_artifact_that_generates_images(
    config: ImageConfig, tmp_path: Path
) -> None:
    made = run_image_generator(config, tmp_path / "image", build_trainer)
    artifact = open_artifact(made, kind="image-generator")
    assert artifact.parent("recommender") == (tmp_path / "recommender").resolve()
    assert artifact.manifest["metrics"]["steps"] == 3
    assert (made / "model_index.json").exists()
    assert (made / "curves.json").read_text().startswith('{"loss": [[1, ')

    sampler = load_image_sampler(made)
    assert sampler.defaults.steps == 2
    user, item = str(sampler.catalog.user_ids[0]), sampler.catalog.items["item_id"][0]
    images = sampler.sample([(user, item), (None, item), (user, None)])
    assert [image.size for image in images] == [(32, 32)] * 3
    file = tmp_path / "a" / "one.png"
    alone = sample_image(made, user=user, item=item, output=file)
    assert np.array_equal(np.asarray(alone), np.asarray(images[0]))
    assert np.array_equal(np.asarray(alone), np.asarray(Image.open(file)))
    verdict = verify(file)
    assert verdict.is_intact
    assert verdict.metadata["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert verdict.metadata["Generator"] == artifact.hash
    assert verdict.metadata["Mode"] == "concept"
    assert verdict.metadata["Item"] == item
    assert user not in file.read_bytes().decode("latin1"), "users are pseudonymous"
    with pytest.raises(VitrineError, match="nobody-here"):
        sampler.sample([("nobody-here", item)])


def test_creative_keeps_the_items_own_pixels(config: ImageConfig, tmp_path: Path) -> None:
    sampler = load_image_sampler(run_image_generator(config, tmp_path / "image", build_trainer))
    creative = replace(sampler.defaults, mode="creative")
    items = sampler.catalog.items["item_id"]
    with_image = [row for row in range(12) if sampler.catalog.item_image(row, 64) is not None]
    user = str(sampler.catalog.user_ids[1])
    sampled = sampler.sample([(user, items[row]) for row in with_image], creative)
    for row, image in zip(with_image, sampled, strict=True):
        own, mask = sampler.item_pixels(row)
        assert image.size == (own.shape[1], own.shape[0])
        assert np.array_equal(np.asarray(image)[mask], own[mask])
        assert not np.array_equal(np.asarray(image), own)
    assert "compositeSynthetic" in sampler.metadata((user, items[0]), creative)["DigitalSourceType"]
    with pytest.raises(VitrineError, match="name one with --item"):
        sampler.sample([(user, None)], creative)
    bare = next(row for row in range(80) if sampler.catalog.media_path(row) is None)
    with pytest.raises(VitrineError, match="it has no readable image"):
        sampler.sample([(user, items[bare])], creative)


def test_the_same_seed_trains_the_same_generator(config: ImageConfig, tmp_path: Path) -> None:
    first = run_image_generator(config, tmp_path / "first", build_trainer)
    second = run_image_generator(config, tmp_path / "second", build_trainer)
    assert (first / "curves.json").read_text() == (second / "curves.json").read_text()
    assert open_artifact(first).hash == open_artifact(second).hash


def test_a_strategy_that_shards_the_ema_is_refused(config: ImageConfig, tmp_path: Path) -> None:
    sharded = replace(config, trainer=replace(config.trainer, strategy="zero3"))
    with pytest.raises(VitrineError, match="use zero2"):
        run_image_generator(sharded, tmp_path / "image", build_trainer)


def test_sample_grids_are_logged_signed_during_training(
    config: ImageConfig, tmp_path: Path
) -> None:
    logged: list[tuple[int, bytes]] = []

    class Files(Logger):
        name, version = "files", "0"

        def log_image(self, name: str, images: list[str], step: int) -> None:
            logged.append((step, Path(images[0]).read_bytes()))

        def log_metrics(self, *_: object) -> None: ...

        def log_hyperparams(self, *_: object) -> None: ...

    def with_loggers(config: TrainerConfig, folder: Path, title: str, callbacks=()) -> pl.Trainer:
        trainer = build_trainer(config, folder, title, callbacks)
        trainer.loggers = [Files(), TensorBoardLogger(tmp_path, name="", version="board")]
        return trainer

    seen = run_image_generator(replace(config, sample_every=2), tmp_path / "seen", with_loggers)
    ((step, content),) = logged
    (events,) = (tmp_path / "board").glob("events.*")
    assert content in events.read_bytes()
    (tmp_path / "grid.png").write_bytes(content)
    assert verify(tmp_path / "grid.png").is_intact
    with Image.open(tmp_path / "grid.png") as grid:
        assert (step, grid.size) == (2, (5 * 32, 4 * 32))
        assert detect_watermark(np.asarray(grid)) > THRESHOLD
    blind = run_image_generator(replace(config, sample_every=0), tmp_path / "blind", build_trainer)
    assert (seen / "curves.json").read_text() == (blind / "curves.json").read_text()
