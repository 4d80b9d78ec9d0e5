"""The pipeline and its networks with random weights, and whether a generator learns two tastes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from generate.evaluation.readings import Reading
from generate.image.config import DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.data import ImageData
from generate.image.denoiser import Conditioner
from generate.image.module import ImageModule
from generate.image.near_copies import TrainingImageIndex
from generate.image.pipeline import PersonalImagePipeline
from generate.image.sampler import ImageSampler
from generate.image.score import colour_histogram, score_images
from generate.image.solvers import SOLVERS, time_schedule
from generate.image.structure import CHANNELS
from tests.generate.image_world import (
    TINY,
    WIDTH,
    FakeRanker,
    ImageWorld,
    codec_of,
    networks_of,
    purchases_of,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ImageWorld:
    return ImageWorld(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def ranker(world: ImageWorld) -> FakeRanker:
    return FakeRanker(world)


@pytest.fixture(scope="module")
def untrained(world: ImageWorld) -> PersonalImagePipeline:
    """Random weights, last layer included, so that every input matters."""
    torch.manual_seed(0)
    conditioner, denoiser = networks_of(TINY)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return PersonalImagePipeline(conditioner.eval(), denoiser.eval(), codec_of(world))


@pytest.fixture(scope="module")
def trained(
    world: ImageWorld, ranker: FakeRanker, tmp_path_factory: pytest.TempPathFactory
) -> PersonalImagePipeline:
    folder = tmp_path_factory.mktemp("image")
    pl.seed_everything(0, verbose=False)
    codec = codec_of(world)
    purchases = purchases_of(world, ranker)
    data = ImageData(
        world,  # type: ignore[arg-type]
        world.split(),
        ranker,
        codec,
        TINY,
        folder / "latents",
        purchases,
    )
    networks = networks_of(TINY)
    networks[0].fit_whitening(purchases, torch.from_numpy(ranker.item_vectors))
    module = ImageModule(*networks, TINY)
    trainer = pl.Trainer(
        max_steps=TINY.trainer.max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    return PersonalImagePipeline(*module.networks(), codec)


def _redness(image: Image.Image) -> float:
    """Mean red minus mean blue, −255 … 255."""
    pixels = np.asarray(image, dtype=np.float64)
    return float((pixels[..., 0] - pixels[..., 2]).mean())


def test_a_saved_pipeline_samples_the_same_image(
    untrained: PersonalImagePipeline, tmp_path: Path
) -> None:
    untrained.save_pretrained(tmp_path)
    loaded = PersonalImagePipeline.from_pretrained(tmp_path)
    assert (tmp_path / "model_index.json").exists()
    states, vectors = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    for ours, theirs in zip(
        untrained(states, vectors, [1, 2], SamplingConfig(steps=4)),
        loaded(states, vectors, [1, 2], SamplingConfig(steps=4)),
        strict=True,
    ):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_an_image_depends_on_its_seed_and_not_on_its_batch(
    untrained: PersonalImagePipeline,
) -> None:
    torch.manual_seed(0)
    states, vectors = torch.randn(5, WIDTH), torch.randn(5, WIDTH)
    states[3] = 0
    seeds = [3, 1, 4, 1, 5]
    together = untrained(states, vectors, seeds, SamplingConfig(steps=4))
    for row in range(5):
        alone = untrained(
            states[row : row + 1],
            vectors[row : row + 1],
            seeds[row : row + 1],
            SamplingConfig(steps=4),
        )
        assert np.array_equal(np.asarray(alone[0]), np.asarray(together[row]))
    split = untrained(states, vectors, seeds, SamplingConfig(steps=4, batch_size=2))
    assert np.array_equal(np.stack(split), np.stack(together))
    other_noise = untrained(states, vectors, [9, 1, 4, 1, 5], SamplingConfig(steps=4))
    assert not np.array_equal(np.asarray(other_noise[0]), np.asarray(together[0]))


def test_an_absent_user_equals_a_dropped_user(untrained: PersonalImagePipeline) -> None:
    vectors = torch.randn(2, WIDTH)
    with torch.no_grad():
        none = untrained.conditioner(torch.zeros(2, WIDTH), vectors)
        dropped = untrained.conditioner(
            torch.randn(2, WIDTH), vectors, torch.zeros(2, dtype=torch.bool)
        )
    assert torch.equal(none, dropped)
    for ours, theirs in zip(
        untrained(None, vectors, [1, 2], SamplingConfig(steps=3)),
        untrained(torch.zeros(2, WIDTH), vectors, [1, 2], SamplingConfig(steps=3)),
        strict=True,
    ):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_one_guided_step_lands_on_the_guided_prediction(untrained: PersonalImagePipeline) -> None:
    states, vectors = torch.randn(1, WIDTH), torch.randn(1, WIDTH)
    noise, nothing = untrained._noise([7], (2, 2)), torch.zeros(1, CHANNELS, 2, 2)
    with torch.no_grad():
        predicted = {}
        for user in (False, True):
            for item in (False, True):
                tokens = untrained.conditioner(
                    states, vectors, torch.tensor([user]), torch.tensor([item])
                )
                predicted[user, item] = untrained.denoiser.predict_clean(
                    noise, torch.ones(1), tokens, nothing
                )
        by_hand = (
            predicted[False, False]
            + 2.0 * (predicted[False, True] - predicted[False, False])
            + 3.0 * (predicted[True, True] - predicted[False, True])
        )
        config = SamplingConfig(user_guidance_scale=3.0, item_guidance_scale=2.0)
        guided = untrained._guided(states, vectors, nothing, config)
        solved = SOLVERS["euler"](guided, noise, time_schedule(1))
    torch.testing.assert_close(solved, by_hand, rtol=1e-3, atol=1e-4)


def test_conditions_of_another_shape_are_refused(untrained: PersonalImagePipeline) -> None:
    with pytest.raises(ValueError, match="one row for each seed"):
        untrained(torch.randn(2, WIDTH), None, [1], SamplingConfig())


def test_roles_tell_a_user_from_an_item() -> None:
    conditioner = Conditioner(WIDTH, 8, 2, 2)
    assert conditioner(torch.randn(3, WIDTH), torch.randn(3, WIDTH)).shape == (3, 4, 8)


def test_conditions_steer_the_norms_too() -> None:
    """Where no block attends to the tokens, their mean still distinguishes item and user."""
    _, denoiser = networks_of(TINY)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for block in denoiser.transformer_blocks:
        torch.nn.init.zeros_(block.attn2.to_out[0].weight)
    tokens = torch.randn(2, 4, 32)
    same = (torch.randn(1, 8, 2, 2).expand(2, -1, -1, -1), torch.full((2,), 0.5))
    outline = torch.zeros(2, CHANNELS, 2, 2)
    one, other = denoiser.predict_clean(*same, tokens, outline)
    assert not torch.allclose(one, other, atol=1e-3)
    torch.nn.init.zeros_(denoiser.adaln_single.condition.weight)
    one, other = denoiser.predict_clean(*same, tokens, outline)
    assert torch.allclose(one, other, atol=1e-6)


def test_the_first_layer_does_not_depend_on_the_batch_size() -> None:
    _, denoiser = networks_of(replace(ImageConfig(), denoiser=DenoiserConfig(layers=1)))
    latents = torch.randn(64, denoiser.config["in_channels"], 4, 4)
    with torch.no_grad():
        together = denoiser.pos_embed(latents)
        for some in (8, 16, 56):
            assert torch.equal(denoiser.pos_embed(latents[:some]), together[:some])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rows_are_conditioned_on_the_purchase_alone_with_the_set_probability(
    world: ImageWorld, ranker: FakeRanker, tmp_path: Path, share: float
) -> None:
    data = ImageData(
        world,  # type: ignore[arg-type]
        world.split(),
        ranker,
        codec_of(world),
        replace(TINY, self_condition_prob=share),
        tmp_path,
        purchases_of(world, ranker),
    )
    data.prepare_data()
    data.setup("fit")
    rows = [data.rows[row] for row in range(40)]
    batch = data.collate(rows)
    moved = data.transfer_batch_to_device(batch, torch.device("cpu"), 0).user_states
    read = ranker.user_states(batch.histories)
    assert torch.equal(moved, data.purchases.match_moments(read) if share else read)
    assert not torch.allclose(data.purchases.match_moments(read), read)
    for row, history in zip(rows, batch.histories, strict=True):
        pair = data.pairs[row.pair]
        training_part = world.interactions.history(pair.user)[:5].tolist()
        others = [item for item in training_part if item != pair.item]
        assert history.tolist() == ([pair.item] if share else others)


def test_two_tastes_give_the_same_item_in_two_colours(
    trained: PersonalImagePipeline, world: ImageWorld, ranker: FakeRanker
) -> None:
    evaluated = np.arange(world.num_users)
    states = ranker.user_states([world.interactions.history(user) for user in evaluated])
    vectors = torch.from_numpy(ranker.item_vectors[evaluated % 8])
    tastes = 1 - 2 * (evaluated % 2)  # 1 red, -1 blue
    own = trained(states, vectors, [0] * len(evaluated), SamplingConfig(steps=6))
    assert (tastes * [_redness(image) for image in own] > 20).mean() >= 0.9
    swapped = trained(states.roll(1, 0), vectors, [0] * len(evaluated), SamplingConfig(steps=6))
    assert (-tastes * [_redness(image) for image in swapped] > 20).mean() >= 0.9
    assert (
        np.mean([_is_tall(p) == (i % 4 >= 2) for p, i in zip(own, evaluated, strict=True)]) >= 0.9
    )


def _is_tall(image: Image.Image) -> bool:
    painted = np.ptp(np.asarray(image).astype(int), axis=2)
    edges, middle = painted[:, [0, -1]].mean(), painted[[0, -1]].mean()
    return bool(middle > edges)


def test_scores_separate_own_from_swapped_users(
    trained: PersonalImagePipeline, world: ImageWorld, ranker: FakeRanker
) -> None:
    users = np.arange(world.num_users)
    own = ranker.user_states([world.interactions.history(user)[:5] for user in users])
    states: dict[str, Tensor] = {"own": own, "swapped": own.roll(1, 0), "none": own * 0}
    evaluated = SimpleNamespace(
        users=users,
        histories=[world.interactions.history(user)[:5] for user in users],
        items=np.array([world.interactions.history(user)[5] for user in users]),
        states=states,
    )
    colour = Reading(
        read=lambda pixels: "red" if _redness(Image.fromarray(pixels)) > 0 else "blue",
        label=lambda user, item: None if user == 3 else ("red", "blue")[user % 2],
    )
    done: list[int] = []
    index = TrainingImageIndex(np.zeros((0, 192), np.uint8), 0.0)
    sampler = ImageSampler(trained, world, ranker, SamplingConfig(), "", index)  # type: ignore[arg-type]
    scores = score_images(
        sampler,
        evaluated,
        SamplingConfig(steps=6),
        readings={"Colour": colour},
        progress=done.append,
    )
    assert sum(done) == 3 * len(users)
    reading = scores["metrics"]["Colour of the user is in the image"]
    assert reading["num_users"] == len(users) - 1
    assert reading["own"]["value"] > 0.8
    assert reading["swapped"]["value"] < 0.2
    assert reading["contrast_name"] == "own / swapped"
    shared = scores["metrics"]["Colours shared with earlier purchases"]
    assert shared["contrast"]["low"] > 0


def test_histogram_shares_sum_to_one() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2] = 255
    histogram = colour_histogram(pixels)
    assert histogram[0] == histogram[-1] == 0.5
    assert histogram.sum() == 1
