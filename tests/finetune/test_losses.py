"""The chunked softmax is the softmax over the catalog; the sampled one estimates it."""

import pytest
import torch
import torch.nn.functional as F

from finetune.data import FinetuneBatch
from finetune.losses import full_softmax_loss, sample_negatives, sampled_softmax_loss
from finetune.module import FinetuneModule, StepSettings, replace_fresh
from finetune.recommender import Recommender
from pretrain.config import OptimizerConfig
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("chunk", [0, 1, 10, 37, 512])
def test_loss_and_gradients_equal_the_whole_matrix(chunk: int, some: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(37, 16, dtype=torch.float64, requires_grad=True)
    items = torch.randn(91, 16, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 60, (37,))
    candidates = torch.arange(91) < 60 if some else None
    leaves = (states, items, scale)
    loss = full_softmax_loss(states, items, targets, scale, candidates, chunk)
    ours = torch.autograd.grad(loss * 2, leaves)
    scores = scale * states @ (items[:60] if some else items).T
    whole = F.cross_entropy(scores, targets) * 2
    for mine, theirs in zip(ours, torch.autograd.grad(whole, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_no_positions_cost_nothing() -> None:
    states = torch.zeros(0, 4, requires_grad=True)
    items = torch.randn(5, 4, requires_grad=True)
    loss = full_softmax_loss(states, items, torch.zeros(0, dtype=torch.int64), torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert items.grad is not None
    assert items.grad.abs().sum() == 0


def test_a_sampled_key_that_is_the_target_is_no_negative() -> None:
    states, vectors = torch.eye(4)[:2], torch.eye(4)[[0, 1, 0, 3]]
    loss = sampled_softmax_loss(
        states, vectors, torch.tensor([7, 8]), torch.tensor([7, 9]), torch.zeros(4), torch.ones(1)
    )
    first = torch.tensor([1.0, 0.0, 0.0]).softmax(0)[0].log()  # target, other target, item 9
    second = torch.tensor([1.0, 0.0, 0.0, 0.0]).softmax(0)[0].log()
    torch.testing.assert_close(loss, -(first + second) / 2)


@pytest.mark.parametrize("negatives", [256, 1024])
def test_sampled_softmax_estimates_the_full_one(negatives: int) -> None:
    """Loss and gradient, where popularity is Zipf's, few items are drawn and the model knows a lot.

    Then it matters that log q has its sign and is not left out (the loss is a tenth), and that it is
    not taken off the target's own logit (the loss is up to twice, the gradient's norm too).
    """
    torch.manual_seed(0)
    num_items, positions, draws = 5000, 64, 30
    taken = (1e5 / torch.arange(1, num_items + 1) ** 1.2).ceil()
    candidates, scale = torch.arange(num_items), torch.tensor([16.0])
    items = F.normalize(torch.randn(num_items, 16), dim=-1).requires_grad_()
    losses, gradients = torch.zeros(2), [torch.zeros_like(items), torch.zeros_like(items)]
    for _ in range(draws):
        targets = torch.multinomial(taken, positions, replacement=True)
        noise = F.normalize(torch.randn(positions, 16), dim=-1)
        states = F.normalize(items.detach()[targets] + 0.4 * noise, dim=-1)
        drawn, log_q = sample_negatives(targets, taken, candidates, negatives)
        keys = items[torch.cat([targets, drawn])]
        sampled = sampled_softmax_loss(states, keys, targets, drawn, log_q, scale)
        exact = full_softmax_loss(states, items, targets, scale)
        for place, loss in enumerate((sampled, exact)):
            losses[place] += loss.item() / draws
            gradients[place] += torch.autograd.grad(loss, items)[0]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.07)
    assert (gradients[0].norm() / gradients[1].norm()).item() == pytest.approx(1, abs=0.07)
    assert F.cosine_similarity(*(g.flatten() for g in gradients), dim=0).item() > 0.99


def test_an_item_is_expected_as_often_as_it_is_drawn() -> None:
    """Among the other positions' targets and the drawn items."""
    torch.manual_seed(0)
    taken, positions, negatives, draws = torch.tensor([8.0, 4, 2, 1, 1]), 5, 3, 2000
    counts, expected = torch.zeros(5), torch.zeros(5)
    for _ in range(draws):
        targets = torch.multinomial(taken, positions, replacement=True)
        drawn, log_q = sample_negatives(targets, taken, torch.arange(5), negatives)
        counts += torch.cat([targets[1:], drawn]).bincount(minlength=5) / draws
        expected[torch.cat([targets, drawn])] = log_q.exp()
    torch.testing.assert_close(counts, expected, rtol=0.07, atol=0)


def test_a_lone_position_without_drawn_items_costs_nothing() -> None:
    targets, taken = torch.tensor([1]), torch.ones(3)
    drawn, log_q = sample_negatives(targets, taken, torch.arange(3), 0)
    states = torch.eye(3)[:1].requires_grad_()
    loss = sampled_softmax_loss(states, torch.eye(3)[1:2], targets, drawn, log_q, torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert states.grad is not None
    assert states.grad.abs().sum() == 0


def module_with(num_items: int, negatives: int | None) -> FinetuneModule:
    """Half of the items were taken far more often than the rest, and the last ten never."""
    torch.manual_seed(0)
    history = SequenceEncoder(SequenceEncoderConfig(width=8, num_layers=1, num_heads=2, dropout=0))
    recommender = Recommender(None, history, num_id_embeddings=num_items)
    counts = torch.where(torch.arange(num_items) < num_items // 2, 20, 1)
    counts[-10:] = 0
    module = FinetuneModule(
        recommender, None, counts, StepSettings(OptimizerConfig(), negatives=negatives)
    )
    module.log = lambda *args, **kwargs: None  # pyright: ignore[reportAttributeAccessIssue]
    return module


def test_the_sampled_loss_estimates_the_catalog_s() -> None:
    """By its correction: without it, items that are drawn more often would count more often."""
    num_items = 200
    items = torch.randint(0, 190, (6, 12))
    segments = torch.zeros_like(items) + torch.arange(6).unsqueeze(1)
    batch = FinetuneBatch(items, segments, None, {})
    whole = module_with(num_items, None)
    exact = whole.training_step(batch, 0)
    exact.backward()
    sampled = module_with(num_items, 20_000)
    estimate = sampled.training_step(batch, 0)
    estimate.backward()
    assert abs(estimate.item() - exact.item()) < 0.02
    ids, others = whole.recommender.id_embeddings, sampled.recommender.id_embeddings
    assert ids is not None
    assert others is not None
    assert ids.weight.grad is not None
    assert others.weight.grad is not None
    cosine = F.cosine_similarity(ids.weight.grad.flatten(), others.weight.grad.flatten(), dim=0)
    assert cosine.item() > 0.99
    assert others.weight.grad[-10:].abs().sum() == 0, "never taken, so no candidates"


def test_in_batch_knows_the_batch_alone() -> None:
    module = module_with(200, 0)
    items = torch.arange(12).view(1, 12)
    batch = FinetuneBatch(items, torch.zeros_like(items), None, {})
    module.training_step(batch, 0).backward()
    assert module.recommender.id_embeddings is not None
    grad = module.recommender.id_embeddings.weight.grad
    assert grad is not None
    assert (grad.abs().sum(dim=1) > 0).nonzero().squeeze(1).tolist() == list(range(12))


def test_fresh_vectors_stand_where_their_items_do() -> None:
    content = torch.zeros(5, 1)
    rows = torch.tensor([2, 3, 5, 8, 9])
    fresh = torch.tensor([[3.0], [4.0], [9.0]])
    found = replace_fresh(content, rows, torch.tensor([3, 4, 9]), fresh)
    assert found.squeeze(1).tolist() == [0, 3, 0, 0, 9]
