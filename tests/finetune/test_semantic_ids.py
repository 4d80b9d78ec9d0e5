"""Semantic ids: codes are unique, and constrained beam search generates existing items alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from finetune.recommender import Recommender
from finetune.semantic_ids.beam_search import beam_search
from finetune.semantic_ids.config import SemanticIdConfig, Tokenizer
from finetune.semantic_ids.kmeans import assign, kmeans
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.rq_vae import RqVae, RqVaeFit, fit_rq_vae
from finetune.semantic_ids.tokenize import (
    assign_semantic_ids,
    codebook_usage,
    residual_kmeans,
    resolve_collisions,
)
from finetune.semantic_ids.trie import Trie
from pretrain.config import SequenceConfig
from pretrain.sequence_encoder import new_sequence_encoder

WIDTH = 16
NO_EXCLUSION = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))


def some_vectors(num: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, WIDTH, generator=generator), dim=-1)


def some_model(codes: np.ndarray, seed: int = 0) -> SemanticRecommender:
    """With random weights, far from where training begins."""
    torch.manual_seed(seed)
    encoder = new_sequence_encoder(SequenceConfig(layers=1, heads=2, max_history=6), WIDTH)
    sizes = (codes.max(axis=0) + 1).tolist()
    model = SemanticRecommender(
        Recommender(None, encoder), Trie(codes, sizes), torch.from_numpy(codes), 1
    )
    for parameter in (
        model.code_embeddings.weight,
        model.level_embeddings.weight,
        model.correction,
    ):
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def random_codes() -> np.ndarray:
    """Semantic ids of 60 items, some with common prefixes; the last level is needed by few."""
    rng = np.random.default_rng(3)
    return resolve_collisions(rng.integers([4, 5, 3], size=(60, 3)), 3)


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return random_codes()


@pytest.fixture(scope="module")
def model(codes: np.ndarray) -> SemanticRecommender:
    return some_model(codes)


def test_kmeans_finds_the_clusters_that_are_there() -> None:
    centers = 10 * some_vectors(7)
    points = centers.repeat_interleave(40, dim=0) + 0.1 * torch.randn(280, WIDTH)
    found = kmeans(points, 7, seed=0)
    nearest, distances = assign(centers, found)
    assert sorted(nearest.tolist()) == list(range(7))
    assert distances.max() < 0.1


def test_assigning_in_chunks_is_assigning_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points, centers = some_vectors(50), some_vectors(6, seed=1)
    monkeypatch.setattr("finetune.semantic_ids.kmeans.DISTANCES", 6 * 7)
    nearest, distances = assign(points, centers)
    everything = torch.cdist(points, centers)
    torch.testing.assert_close(nearest, everything.argmin(dim=1))
    torch.testing.assert_close(distances.sqrt(), everything.min(dim=1).values, atol=1e-3, rtol=0)


def test_no_centre_is_left_without_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kmeans(torch.zeros(3, WIDTH), 4, seed=0).isfinite().all()  # fewer points than centres
    monkeypatch.setattr(
        "finetune.semantic_ids.kmeans._spread",
        lambda sample, number, _: sample[:1].repeat(number, 1),
    )
    nearest, _ = assign(some_vectors(60), kmeans(some_vectors(60), 9, seed=0, iterations=2))
    assert len(nearest.unique()) == 9


def test_each_level_lowers_the_reconstruction_error() -> None:
    vectors = some_vectors(200)
    errors = [residual_kmeans(vectors, levels, 8, seed=0)[1].sum() for levels in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("copies", [1, 2, 4, 11])
def test_no_two_items_share_a_semantic_id(copies: int) -> None:
    before = np.repeat(np.array([[0, 1], [2, 0], [2, 1]]), copies, axis=0)
    after = resolve_collisions(before, 3)
    assert len(np.unique(after, axis=0)) == len(before)
    np.testing.assert_array_equal(after[:, :2], before)
    assert after.shape[1] - 2 == {1: 0, 2: 1, 4: 2, 11: 3}[copies]  # base-3 digits of copies - 1
    assert after.max() < 3


def test_codebook_usage_is_counted_before_collisions_are_resolved() -> None:
    found = codebook_usage(np.array([[0, 0], [0, 0], [1, 0], [1, 1]]), num_codes=4)
    assert found["collisions"] == 0.5
    assert found["largest_collision"] == 2
    assert (found["usage_1"], found["usage_2"]) == (0.5, 0.5)
    assert found["perplexity_1"] == pytest.approx(2)
    assert found["perplexity_2"] == pytest.approx(4 / 3**0.75)


@pytest.mark.parametrize("tokenizer", ["residual-kmeans", "rq-vae"])
def test_semantic_ids_reconstruct_most_of_a_vector(tokenizer: Tokenizer) -> None:
    vectors = some_vectors(12).repeat_interleave(20, dim=0) + 0.05 * some_vectors(240, seed=1)
    config = SemanticIdConfig(
        tokenizer=tokenizer, num_levels=2, codebook_size=16, tokenizer_steps=400
    )
    ids = assign_semantic_ids(vectors, config, seed=0)
    assert len(np.unique(ids.codes, axis=0)) == 240
    assert ids.metrics["reconstruction_error"] < 0.15
    assert ids.metrics["usage_1"] > 0.6


@pytest.mark.parametrize("tokenizer", ["residual-kmeans", "rq-vae"])
def test_semantic_ids_are_a_function_of_the_seed(tokenizer: Tokenizer) -> None:
    config = SemanticIdConfig(
        tokenizer=tokenizer, num_levels=2, codebook_size=8, tokenizer_steps=10
    )
    once, again, other = (
        assign_semantic_ids(some_vectors(90), config, seed=s).codes for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(once, again)
    assert once.shape != other.shape or (once != other).any()


def test_a_tiny_catalog_has_few_codes() -> None:
    ids = assign_semantic_ids(
        some_vectors(20), SemanticIdConfig(num_levels=2, codebook_size=256), seed=0
    )
    assert ids.metrics["codes"] == 5
    assert ids.codes.max() < 5


def test_the_gradient_of_the_rq_vae_goes_through_its_codes() -> None:
    torch.manual_seed(0)
    rq_vae, vectors = RqVae(WIDTH, 2, 4), some_vectors(30)
    rq_vae.initialize_codebooks(vectors, seed=0)
    rebuilt, codes, lefts = rq_vae(vectors)
    (rebuilt - vectors).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in rq_vae.named_parameters()}
    assert gradients.pop("codebooks") is None  # codes learn from their own term alone
    assert all(grad is not None and grad.abs().max() > 0 for grad in gradients.values())
    (grad,) = torch.autograd.grad(rq_vae.loss(vectors)[0], [rq_vae.codebooks])
    assert grad.abs().max() > 0
    for level in range(2):  # each code is the nearest to what those before it left
        nearest, _ = assign(lefts[:, level].detach(), rq_vae.codebooks[level].detach())
        torch.testing.assert_close(codes[:, level], nearest)


def test_dead_codes_are_revived(monkeypatch: pytest.MonkeyPatch) -> None:
    def far_away(self: RqVae, vectors: torch.Tensor, seed: int) -> None:
        self.codebooks.data.fill_(50.0)
        self.codebooks.data[:, 0] = 0.0

    monkeypatch.setattr(RqVae, "initialize_codebooks", far_away)
    monkeypatch.setattr("finetune.semantic_ids.rq_vae.REVIVE_EVERY", 20)
    codes, _ = fit_rq_vae(some_vectors(200), RqVaeFit(2, 8, seed=0, steps=120))
    assert codebook_usage(codes.numpy(), 8)["usage_1"] > 0.8


def test_the_trie_holds_each_prefix_once(codes: np.ndarray, model: SemanticRecommender) -> None:
    trie = model.trie
    for depth in range(codes.shape[1]):
        prefixes = sorted({tuple(row[:depth]) for row in codes.tolist()})
        children = trie.child_nodes(depth, torch.arange(len(prefixes)))
        for node, prefix in enumerate(prefixes):
            after = {row[depth] for row in codes.tolist() if tuple(row[:depth]) == prefix}
            assert set(np.flatnonzero(children[node] >= 0)) == after
        longer = sorted({tuple(row[: depth + 1]) for row in codes.tolist()})
        nodes = trie.nodes_of(torch.arange(60), depth + 1)
        assert [longer[node] for node in nodes] == [tuple(r[: depth + 1]) for r in codes.tolist()]
    leaves = trie.nodes_of(torch.arange(60), codes.shape[1])
    torch.testing.assert_close(trie.order[leaves], torch.arange(60))


def test_code_embeddings_start_as_mean_residuals(codes: np.ndarray) -> None:
    vectors = some_vectors(300)
    found, missed = residual_kmeans(vectors, 2, 8, seed=0)
    model = some_model(resolve_collisions(found.numpy(), 8))
    model.initialize_codes(vectors)
    decoded = model.code_embeddings(model.codes[:, :2] + model.offsets[:2]).sum(dim=1)
    torch.testing.assert_close(
        (vectors - decoded).square().sum(dim=1), missed, atol=0.02, rtol=0.05
    )


def all_scores(model: SemanticRecommender, states: torch.Tensor) -> torch.Tensor:
    """Log-likelihoods of every item after every state: (users, num_items)."""
    items = torch.arange(len(model.codes))
    with torch.no_grad():
        return torch.stack([model.log_likelihood(s.expand(len(items), -1), items) for s in states])


def test_likelihoods_are_a_distribution_over_the_items(model: SemanticRecommender) -> None:
    scores = all_scores(model, some_vectors(3))
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(3))
    assert scores.std() > 0.1


def test_cold_items_are_no_candidates_in_training(model: SemanticRecommender) -> None:
    taken = torch.arange(60) % 3 > 0
    items, among = taken.nonzero().squeeze(1), model.trie.prefix_counts(taken)
    states = some_vectors(1).expand(len(items), -1)
    with torch.no_grad():
        alone = model.log_likelihood(states, items, among).exp().sum()
        beside_others = model.log_likelihood(states, items).exp().sum()
    assert alone == pytest.approx(1, abs=1e-5)
    assert beside_others < 0.9


def test_a_beam_wide_enough_scores_every_item(model: SemanticRecommender) -> None:
    states = some_vectors(4)
    expected, order = all_scores(model, states).sort(dim=1, descending=True)
    items, scores = beam_search(model, states, 60, NO_EXCLUSION)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    assert (items == order).float().mean() > 0.95  # but for the order of equals


def test_a_narrow_beam_generates_existing_items_with_their_scores(
    model: SemanticRecommender,
) -> None:
    states = some_vectors(5)
    everything = all_scores(model, states)
    items, scores = beam_search(model, states, 7, NO_EXCLUSION)
    assert ((items >= 0) & (items < 60)).all()
    assert all(len(set(row)) == 7 for row in items.tolist())
    torch.testing.assert_close(scores, everything.gather(1, items), atol=1e-4, rtol=0)


def test_excluded_items_are_not_generated_and_take_no_beam(model: SemanticRecommender) -> None:
    states = some_vectors(3)
    likeliest, _ = beam_search(model, states[:1], 60, NO_EXCLUSION)
    first = model.codes[likeliest[0, 0], 0]
    shared = (model.codes[:, 0] == first).nonzero().squeeze(1)  # all that begins like the likeliest
    rows = torch.cat([torch.zeros_like(shared), torch.ones_like(shared), torch.tensor([0])])
    excluded = rows, torch.cat([shared, shared, shared[:1]])  # one of them twice
    items, scores = beam_search(model, states, 60, excluded)
    assert (items[:2] >= 0).sum(dim=1).tolist() == [60 - len(shared)] * 2
    assert not torch.isin(items[:2], shared).any()
    assert torch.isneginf(scores[0, 60 - len(shared) :]).all()
    assert (items[2] >= 0).all()
    narrow, _ = beam_search(model, states, 1, excluded)
    assert (narrow >= 0).all()  # no beam followed a beginning of which nothing is left


def test_everything_may_be_excluded(model: SemanticRecommender) -> None:
    nothing, _ = beam_search(
        model, some_vectors(1), 9, (torch.zeros(60, dtype=torch.int64), torch.arange(60))
    )
    assert (nothing == -1).all()
