"""The image generator's parts: codec, guidance, siblings, solver, and whether it learns at all."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from catalog.errors import VitrineError
from catalog.images import read_image
from catalog.splits import Targets
from generate.evaluation.readings import Reading
from generate.image.codec import PatchCodec, peak_signal_to_noise
from generate.image.config import CodecConfig, DenoiserConfig, ImageConfig, SamplingConfig
from generate.image.data import ImageData
from generate.image.denoiser import Conditioner, predict_clean
from generate.image.guidance import Case, Scales, guidance_weights
from generate.image.latent_cache import encode_images, fit_codec
from generate.image.module import ImageModule
from generate.image.pipeline import PersonalImagePipeline
from generate.image.run import new_networks
from generate.image.score import colour_histogram, score_images
from generate.image.siblings import Siblings
from generate.image.solvers import SOLVERS, times_for
from generate.image.structure import CHANNELS
from generate.purchase_states import PurchaseStates, sample_purchase_states
from pretrain.config import OptimizerConfig, TrainerConfig

WIDTH = 6
RED, BLUE = (220, 40, 40), (40, 60, 220)
TINY = ImageConfig(
    image_size=16,
    codec=CodecConfig(patch_size=8, channels=8, overlap=0, whitening=0.5),
    denoiser=DenoiserConfig(width=32, layers=2, heads=2, user_tokens=2, item_tokens=2),
    batch_size=16,
    optimizer=OptimizerConfig(learning_rate=4e-3),
    trainer=TrainerConfig(max_steps=150),
)


class Interactions:
    """Two tastes: even people bought red things, odd ones blue."""

    def __init__(self, num_users: int, num_items: int, length: int = 6) -> None:
        rng = np.random.default_rng(0)
        rows = [
            rng.permutation(np.arange(user % 2, num_items, 2))[:length] for user in range(num_users)
        ]
        self.items = np.concatenate(rows).astype(np.int32)
        self.offsets = np.arange(num_users + 1) * length

    def history(self, user: int) -> np.ndarray:
        return self.items[self.offsets[user] : self.offsets[user + 1]]


class World:
    """Even items are red, odd ones blue; half of each are wide, half tall; the last lacks a picture."""

    name, fingerprint, content_fingerprint = "tiny", "tiny", "tiny"
    num_items, num_users = 24, 12

    def __init__(self, folder: Path, shape: tuple[int, int] = (32, 32)) -> None:
        self.items = {"category": ["wide" if i % 4 < 2 else "tall" for i in range(self.num_items)]}
        self.interactions = Interactions(self.num_users, self.num_items)
        self.folder = folder
        self.broken_images: dict[int, str] = {}
        for item in range(self.num_items - 1):
            picture = np.full((*shape, 3), 240, dtype=np.uint8)
            height, width = shape
            rows, columns = (slice(s // 4, s - s // 4) for s in (height, width))
            where = (rows, slice(None)) if item % 4 < 2 else (slice(None), columns)
            picture[where] = RED if item % 2 == 0 else BLUE
            Image.fromarray(picture).save(folder / f"{item}.png")

    def media_path(self, item: int) -> str | None:
        return None if item == self.num_items - 1 else str(self.folder / f"{item}.png")

    def item_image(self, item: int, size: int | tuple[int, int]) -> np.ndarray | None:
        path = self.media_path(item)
        return None if path is None else read_image(path, size)

    def split(self) -> Any:
        users = np.repeat(np.arange(self.num_users), 4)
        positions = np.tile(np.arange(1, 5), self.num_users)
        people = np.arange(self.num_users, dtype=np.int32)
        test = Targets(people, np.full(self.num_users, 5, dtype=np.int32))
        ends = np.full(self.num_users, 5, dtype=np.int32)
        return SimpleNamespace(
            train_positions=lambda: (users, positions), train_end=ends, test=test
        )


class FakeRanker:
    """Item vectors say colour and shape; a state is the mean of the history."""

    width = WIDTH

    def __init__(self, world: World) -> None:
        place = np.arange(world.num_items)
        vectors = np.random.default_rng(1).normal(0, 0.1, (world.num_items, WIDTH))
        vectors[place, place % 2] += 1
        vectors[place, 2 + (place % 4) // 2] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> torch.Tensor:
        states = np.zeros((len(histories), WIDTH), dtype=np.float32)
        for row, history in enumerate(histories):
            if len(history):
                mean = self.item_vectors[history].mean(0)
                states[row] = mean / np.linalg.norm(mean)
        return torch.from_numpy(states)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def ranker(world: World) -> FakeRanker:
    return FakeRanker(world)


@pytest.fixture(scope="module")
def untrained(world: World) -> PersonalImagePipeline:
    """Random weights, last layer included, so that every input matters."""
    torch.manual_seed(0)
    conditioner, denoiser = new_networks(TINY, WIDTH)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return PersonalImagePipeline(conditioner.eval(), denoiser.eval(), _codec(world))


@pytest.fixture(scope="module")
def trained(
    world: World, ranker: FakeRanker, tmp_path_factory: pytest.TempPathFactory
) -> PersonalImagePipeline:
    folder = tmp_path_factory.mktemp("image")
    pl.seed_everything(0, verbose=False)
    codec = _codec(world)
    purchases = _purchases(world, ranker)
    data = ImageData(
        world,  # type: ignore[arg-type]
        world.split(),
        ranker,
        codec,
        TINY,
        folder / "latents",
        purchases,
    )
    networks = new_networks(TINY, WIDTH)
    networks[0].standardise(purchases, torch.from_numpy(ranker.item_vectors))
    module = ImageModule(*networks, TINY.optimizer)
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


def _purchases(world: World, ranker: FakeRanker) -> PurchaseStates:
    return sample_purchase_states(world, world.split(), ranker, seed=0)  # type: ignore[arg-type]


def _codec(world: World) -> PatchCodec:
    return fit_codec(world, TINY)  # type: ignore[arg-type]


def _redness(picture: Image.Image) -> float:
    """Mean red minus mean blue, −255 … 255."""
    pixels = np.asarray(picture, dtype=np.float64)
    return float((pixels[..., 0] - pixels[..., 2]).mean())


# Codec


def test_codec_with_every_component_is_exact() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    codec = PatchCodec.fit([pictures], patch_size=4, channels=48, overlap=0)
    copies = codec.decode(codec.encode(torch.from_numpy(pictures))).numpy()
    assert np.abs(copies.astype(int) - pictures).max() <= 1


@pytest.mark.parametrize("overlap", [1, 2])
def test_overlapping_patches_lose_nothing_either(overlap: int) -> None:
    """A window whose squares sum to 1 gives back what all components keep."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (150, 12, 12, 3), dtype=np.uint8)
    codec = PatchCodec.fit([pictures], 4, channels=3 * (4 + 2 * overlap) ** 2, overlap=overlap)
    copies = codec.decode(codec.encode(torch.from_numpy(pictures))).numpy()
    assert np.abs(copies.astype(int) - pictures).max() <= 1


def test_codec_keeps_smooth_pictures_with_few_components() -> None:
    ramp = np.linspace(0, 1, 32)
    angles = np.random.default_rng(0).uniform(0, 6, (40, 3))
    pictures = np.stack(
        [np.sin(4 * ramp[:, None, None] * np.cos(a) + 4 * ramp[None, :, None] + a) for a in angles]
    )
    pixels = ((pictures + 1) * 127).astype(np.uint8)
    psnr = {}
    for channels in (4, 12, 24):
        codec = PatchCodec.fit([pixels[:30]], 8, channels, overlap=1)
        copies = codec.decode(codec.encode(torch.from_numpy(pixels[30:]))).numpy()
        psnr[channels] = peak_signal_to_noise(pixels[30:], copies)
    assert psnr[4] < psnr[12] < psnr[24]
    assert psnr[24] > 35


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_variance_one_on_average(whitening: float) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (80, 2, 2, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    latents = PatchCodec.fit([pictures], 4, 3, 0, whitening).encode(torch.from_numpy(pictures))
    assert latents.shape == (80, 3, 2, 2)
    assert latents.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)


def test_codec_settings_that_cannot_work_are_refused(world: World) -> None:
    def fit(**settings: Any) -> None:
        fit_codec(world, replace(TINY, **settings))  # type: ignore[arg-type]

    with pytest.raises(VitrineError, match="multiple"):
        fit(image_size=60)
    with pytest.raises(VitrineError, match="channels 50"):
        fit(codec=CodecConfig(patch_size=4, channels=50, overlap=0))
    with pytest.raises(VitrineError, match="num_resolution_buckets is 0"):
        fit(num_resolution_buckets=0)


def test_pictures_are_encoded_once_and_missing_ones_marked(world: World, tmp_path: Path) -> None:
    codec = _codec(world)
    first = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert first.bucket_of.tolist() == [0] * 23 + [-1]
    facts = json.loads((tmp_path / "made.json").read_text())
    (tmp_path / "made.json").write_text(json.dumps(facts | {"done": 20}))
    kept = np.array(first.latents[0])
    first.latents[0][19:] = 0  # type: ignore[index]
    again = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert (np.asarray(again.latents[0])[19] == 0).all(), "what is done is not done again"
    assert np.array_equal(again.latents[0][20:], kept[20:])
    (tmp_path / "made.json").write_text(json.dumps(facts | {"key": "of another codec"}))
    anew = encode_images(world, codec, tmp_path)  # type: ignore[arg-type]
    assert np.array_equal(anew.latents[0], kept)


def test_pictures_of_two_shapes_are_kept_in_two_frames(tmp_path: Path) -> None:
    world = World(tmp_path, (32, 16))
    for item in range(6):
        Image.new("RGB", (32, 32), RED).save(tmp_path / f"{item}.png")
    for frames, wanted in ((1, [(24, 8)]), (2, [(24, 8), (16, 16)])):
        config = replace(TINY, num_resolution_buckets=frames)
        codec = fit_codec(world, config)  # type: ignore[arg-type]
        assert [_ratio(frame) for frame in codec.frames] == [_ratio(frame) for frame in wanted]
        pictures = encode_images(world, codec, tmp_path / str(frames))  # type: ignore[arg-type]
        assert pictures.bucket_of.tolist() == [frames - 1] * 6 + [0] * 17 + [-1]
        for item in (0, 10):
            frame, row = pictures.bucket_of[item], pictures.row_of[item]
            grid = codec.grid_of(codec.frames[frame])
            assert pictures.latents[frame][row].shape == (8, *grid)
            assert pictures.structures[frame][row].shape == (CHANNELS, *grid)


def _ratio(frame: tuple[int, int]) -> float:
    return frame[0] / frame[1]


# Flow and guidance


@pytest.mark.parametrize("scales", [Scales(3, 2, 1.5), Scales(1, 1, 1), Scales(0, 1.5, 0)])
def test_guidance_is_the_sum_it_claims_to_be(scales: Scales) -> None:
    f = {
        Case(): 5.0,
        Case(item=True): 7.0,
        Case(item=True, structure=True): 11.0,
        Case(item=True, structure=True, user=True): 17.0,
        Case(item=True, user=True): 13.0,
    }
    weights = guidance_weights(Case(True, True, True), scales)
    person = 17 - 11 if scales.structure else 13 - 7
    assert sum(f[case] * weight for case, weight in weights.items()) == pytest.approx(
        5 + scales.item * (7 - 5) + scales.structure * (11 - 7) + scales.user * person
    )
    assert 0 not in weights.values()


def test_guidance_leaves_out_absent_and_ignored_conditions() -> None:
    leaning = Scales(3, 2, 1)
    assert guidance_weights(Case(), leaning) == {Case(): 1}
    assert guidance_weights(Case(item=True), leaning) == {Case(): -1, Case(item=True): 2}
    assert guidance_weights(Case(user=True), leaning) == {Case(): -2, Case(user=True): 3}
    both = Case(user=True, item=True)
    assert guidance_weights(both, Scales()) == {both: 1}
    for has in (both, Case(True, True, True)):
        unconditional = guidance_weights(has._replace(user=False), leaning)
        assert guidance_weights(has, leaning._replace(user=0)) == unconditional
        nothing = guidance_weights(has._replace(item=False), leaning)
        assert guidance_weights(has, leaning._replace(item=0)) == nothing
    assert Scales(6, 0.5, 0).plain() == Scales(1, 0.5, 0)


# Siblings


def test_a_sibling_is_another_item_of_the_same_category() -> None:
    rng = np.random.default_rng(0)
    categories = [f"kind {n}" for n in rng.integers(5, size=60)] + ["alone"]
    siblings = Siblings(categories, rng.normal(size=(61, 4)).astype(np.float32))
    items = np.tile(np.arange(60), 20)
    picked = siblings.pick(items, rng)
    assert all(categories[a] == categories[b] for a, b in zip(items, picked, strict=True))
    assert (picked != items).all()
    assert len(set(picked.tolist())) == 60
    assert siblings.pick(np.array([60]), rng).tolist() == [60]


def test_without_category_a_sibling_is_a_near_neighbour() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4)[np.arange(48) % 4]
    vectors = (centres + 0.05 * rng.normal(size=centres.shape)).astype(np.float32)
    siblings = Siblings([None] * 48, vectors)
    items = np.tile(np.arange(48), 5)
    picked = siblings.pick(items, rng)
    assert (picked % 4 == items % 4).all()
    assert (picked != items).all()


# Drawing


def test_a_saved_pipeline_draws_the_same_picture(
    untrained: PersonalImagePipeline, tmp_path: Path
) -> None:
    untrained.save_pretrained(tmp_path)
    loaded = PersonalImagePipeline.from_pretrained(tmp_path)
    assert (tmp_path / "model_index.json").exists()
    states, vectors = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    for ours, theirs in zip(
        untrained(states, vectors, [1, 2], steps=4),
        loaded(states, vectors, [1, 2], steps=4),
        strict=True,
    ):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_a_picture_depends_on_its_seed_and_not_on_its_batch(
    untrained: PersonalImagePipeline,
) -> None:
    torch.manual_seed(0)
    states, vectors = torch.randn(5, WIDTH), torch.randn(5, WIDTH)
    states[3] = 0
    seeds = [3, 1, 4, 1, 5]
    together = untrained(states, vectors, seeds, steps=4)
    for row in range(5):
        alone = untrained(
            states[row : row + 1], vectors[row : row + 1], seeds[row : row + 1], steps=4
        )
        assert np.array_equal(np.asarray(alone[0]), np.asarray(together[row]))
    split = untrained(states, vectors, seeds, steps=4, batch_size=2)
    assert np.array_equal(np.stack(split), np.stack(together))
    other_noise = untrained(states, vectors, [9, 1, 4, 1, 5], steps=4)
    assert not np.array_equal(np.asarray(other_noise[0]), np.asarray(together[0]))


def test_unconditional_is_the_same_as_a_dropped_user(untrained: PersonalImagePipeline) -> None:
    vectors = torch.randn(2, WIDTH)
    with torch.no_grad():
        none = untrained.conditioner(torch.zeros(2, WIDTH), vectors)
        dropped = untrained.conditioner(
            torch.randn(2, WIDTH), vectors, torch.zeros(2, dtype=torch.bool)
        )
    assert torch.equal(none, dropped)
    for ours, theirs in zip(
        untrained(None, vectors, [1, 2], steps=3),
        untrained(torch.zeros(2, WIDTH), vectors, [1, 2], steps=3),
        strict=True,
    ):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_one_guided_step_lands_on_the_guided_estimate(untrained: PersonalImagePipeline) -> None:
    states, vectors = torch.randn(1, WIDTH), torch.randn(1, WIDTH)
    noise, nothing = untrained._noise([7], (2, 2)), torch.zeros(1, CHANNELS, 2, 2)
    with torch.no_grad():
        guess = {}
        for user in (False, True):
            for item in (False, True):
                tokens = untrained.conditioner(
                    states, vectors, torch.tensor([user]), torch.tensor([item])
                )
                guess[user, item] = predict_clean(
                    untrained.denoiser, noise, torch.ones(1), tokens, nothing
                )
        by_hand = (
            guess[False, False]
            + 2.0 * (guess[False, True] - guess[False, False])
            + 3.0 * (guess[True, True] - guess[False, True])
        )
        estimate = untrained._estimate(states, vectors, nothing, Scales(3.0, 2.0), 0.4)
        solved = SOLVERS["euler"](estimate, noise, times_for(1))
    torch.testing.assert_close(solved, by_hand, rtol=1e-3, atol=1e-4)


def test_conditions_of_another_shape_are_refused(untrained: PersonalImagePipeline) -> None:
    with pytest.raises(ValueError, match="one row for each seed"):
        untrained(torch.randn(2, WIDTH), None, [1])


def test_roles_tell_a_user_from_an_item() -> None:
    conditioner = Conditioner(WIDTH, 8, 2, 2)
    assert conditioner(torch.randn(3, WIDTH), torch.randn(3, WIDTH)).shape == (3, 4, 8)


def test_conditions_steer_the_norms_too() -> None:
    """Where no block attends to the tokens, their mean still tells item and person apart."""
    _, denoiser = new_networks(TINY, WIDTH)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for block in denoiser.transformer_blocks:
        torch.nn.init.zeros_(block.attn2.to_out[0].weight)
    tokens = torch.randn(2, 4, 32)
    same = (torch.randn(1, 8, 2, 2).expand(2, -1, -1, -1), torch.full((2,), 0.5))
    outline = torch.zeros(2, CHANNELS, 2, 2)
    one, other = predict_clean(denoiser, *same, tokens, outline)
    assert not torch.allclose(one, other, atol=1e-3)
    torch.nn.init.zeros_(denoiser.adaln_single.condition.weight)
    one, other = predict_clean(denoiser, *same, tokens, outline)
    assert torch.allclose(one, other, atol=1e-6)


def test_the_first_layer_does_not_depend_on_how_many_pictures_there_are() -> None:
    _, denoiser = new_networks(replace(ImageConfig(), denoiser=DenoiserConfig(layers=1)), 128)
    latents = torch.randn(64, denoiser.config["in_channels"], 4, 4)
    with torch.no_grad():
        together = denoiser.pos_embed(latents)
        for some in (8, 16, 56):
            assert torch.equal(denoiser.pos_embed(latents[:some]), together[:some])


# Learning


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_people_is_known_by_the_purchase_alone(
    world: World, ranker: FakeRanker, tmp_path: Path, share: float
) -> None:
    data = ImageData(
        world,  # type: ignore[arg-type]
        world.split(),
        ranker,
        _codec(world),
        replace(TINY, self_condition_prob=share),
        tmp_path,
        _purchases(world, ranker),
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
        pair = data.pairs[row.place]
        training_part = world.interactions.history(pair.user)[:5].tolist()
        others = [item for item in training_part if item != pair.item]
        assert history.tolist() == ([pair.item] if share else others)


def test_two_tastes_draw_the_same_item_in_two_colours(
    trained: PersonalImagePipeline, world: World, ranker: FakeRanker
) -> None:
    people = np.arange(world.num_users)
    states = ranker.user_states([world.interactions.history(user) for user in people])
    vectors = torch.from_numpy(ranker.item_vectors[people % 8])
    tastes = 1 - 2 * (people % 2)  # 1 red, -1 blue
    own = trained(states, vectors, [0] * len(people), steps=6)
    assert (tastes * [_redness(picture) for picture in own] > 20).mean() >= 0.9
    swapped = trained(states.roll(1, 0), vectors, [0] * len(people), steps=6)
    assert (-tastes * [_redness(picture) for picture in swapped] > 20).mean() >= 0.9
    assert np.mean([_is_tall(p) == (i % 4 >= 2) for p, i in zip(own, people, strict=True)]) >= 0.9


def _is_tall(picture: Image.Image) -> bool:
    painted = np.ptp(np.asarray(picture).astype(int), axis=2)
    edges, middle = painted[:, [0, -1]].mean(), painted[[0, -1]].mean()
    return bool(middle > edges)


def test_scores_tell_own_from_swapped(
    trained: PersonalImagePipeline, world: World, ranker: FakeRanker
) -> None:
    users = np.arange(world.num_users)
    own = ranker.user_states([world.interactions.history(user)[:5] for user in users])
    states: dict[str, Tensor] = {"own": own, "swapped": own.roll(1, 0), "none": own * 0}
    people = SimpleNamespace(
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
    scores = score_images(
        trained,
        ranker,
        world,  # type: ignore[arg-type]
        people,
        SamplingConfig(steps=6),
        readings={"Colour": colour},
        progress=done.append,
    )
    assert sum(done) == 3 * len(users)
    reading = scores["measures"]["Colour of the person is in the picture"]
    assert reading["people"] == len(users) - 1
    assert reading["own"]["value"] > 0.8
    assert reading["swapped"]["value"] < 0.2
    assert reading["contrast_name"] == "own / swapped"
    shared = scores["measures"]["Colours shared with what they bought before"]
    assert shared["contrast"]["low"] > 0


def test_histogram_shares_sum_to_one() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2] = 255
    histogram = colour_histogram(pixels)
    assert histogram[0] == histogram[-1] == 0.5
    assert histogram.sum() == 1
