"""Batch generation of images, and forgetting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from generate.forget import forget
from generate.image import batch_job
from generate.image.config import (
    ImageBatchConfig,
)
from generate.image.loading import load_image_sampler
from generate.image.sampler import ImageSampler
from generate.provenance import verify
from generate.pseudonyms import pseudonymize
from tests.generate.small_image_generator import FEW, small_image_generator


@pytest.fixture(scope="module")
def generator(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_image_generator(demo_world, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def sampler(generator: Path) -> ImageSampler:
    return load_image_sampler(generator)


def test_a_batch_job_resumes_and_gives_each_user_the_image_of_a_single_request(
    generator: Path, sampler: ImageSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generate.batch_job.USERS_PER_PART", 2)
    users = [str(user) for user in sampler.catalog.user_ids[:5]]
    (tmp_path / "some.txt").write_text("\n".join(users))
    config = ImageBatchConfig(
        generator=str(generator), items="top:2", users=str(tmp_path / "some.txt"), sampling=FEW
    )
    whole = batch_job.run_image_batch_job(config, tmp_path / "whole")
    rows = batch_job.read_images(whole).to_pylist()
    assert [(row["user"], row["rank"]) for row in rows] == [
        (pseudonymize(user), place) for user in users for place in range(2)
    ]
    text = (whole / "images.parquet").read_bytes()
    assert not any(user.encode() in text for user in users)
    for row, user in ((rows[3], users[1]), (rows[8], users[4])):
        (tmp_path / "one.png").write_bytes(row["image"]["bytes"])
        assert verify(tmp_path / "one.png").is_intact
        again = sampler.sample([(user, row["item_id"])], replace(FEW, seed=row["seed"]))[0]
        assert np.array_equal(np.asarray(again), np.asarray(Image.open(tmp_path / "one.png")))

    sample_part, sampled = batch_job.sample_part, []

    def stop_after_two(sampler: ImageSampler, users: np.ndarray, *rest):
        if len(sampled) == 2:
            raise KeyboardInterrupt
        sampled.append(users.tolist())
        return sample_part(sampler, users, *rest)

    monkeypatch.setattr(batch_job, "sample_part", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        batch_job.run_image_batch_job(config, tmp_path / "broken")
    sampled.clear()
    broken = batch_job.run_image_batch_job(config, tmp_path / "broken")
    assert len(sampled) == 1
    # But for its signature, which says nothing of when, each is the same.
    assert batch_job.read_images(broken).to_pylist() == rows
    metrics = open_artifact(whole).manifest["metrics"]
    assert metrics.items() >= {"users": 5, "images": 10, "rejected": 0}.items()


def test_forgetting_reports_what_was_trained_on_the_user(
    generator: Path, sampler: ImageSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    gone = str(sampler.catalog.user_ids[0])
    assert generator in forget(gone, generator.parent).trained
    with pytest.raises(VitrineError, match="is no folder"):
        forget(gone, tmp_path / "nowhere")
