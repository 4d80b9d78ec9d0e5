"""Objectives against brute force: what counts as a negative, and what does not."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from catalog.errors import VitrineError
from pretrain.config import ObjectivesConfig
from pretrain.modalities.text import next_token_nll
from pretrain.module import active_weights, tokens_of
from pretrain.objectives import (
    BagOfWords,
    CoEngagementContrast,
    CrossModalContrast,
    EdgeContrast,
    FeatureReconstruction,
    LanguageModeling,
    NextItemContrast,
    StepOutputs,
)
from pretrain.objectives.base import first_occurrences
from pretrain.objectives.contrast import info_nce
from pretrain.objectives.language_modeling import TiedHead


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def outputs() -> StepOutputs:
    torch.manual_seed(0)
    return StepOutputs(
        item_ids=torch.tensor([3, 5, 3, 8, 9, 5]),
        items=unit(6, 4),
        states=unit(6, 4),
        segments=torch.tensor([0, 0, 0, 1, 1, 2]),
        log_popularity=torch.randn(6, dtype=torch.float64),
        projected_embeddings=unit(6, 2, 4),
        present=torch.tensor([[1, 1, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1]]).bool().T,
    )


def test_next_item_loss_is_the_softmax_over_other_items_with_log_q_correction() -> None:
    step = outputs()
    objective = NextItemContrast(0.1).double()
    losses = []
    for slot in (0, 1, 3):  # the slots whose next one belongs to the same stretch
        wanted = slot + 1
        logits = []
        for key in range(6):
            if key != wanted and step.item_ids[key] == step.item_ids[wanted]:
                continue
            logits.append(10 * step.states[slot] @ step.items[key])
            if key != wanted:  # stands for as many items as one was expected of among 5 others
                logits[-1] = logits[-1] - step.log_popularity[key] - math.log(5)
            if key == wanted:
                place = len(logits) - 1
        losses.append(-torch.stack(logits).log_softmax(0)[place])
    torch.testing.assert_close(objective(step), torch.stack(losses).mean(), atol=1e-6, rtol=0)


def test_a_batch_estimates_the_softmax_over_every_item() -> None:
    """Loss and gradient of in-batch negatives, whose popularity is Zipf's, without bias by it."""
    torch.manual_seed(0)
    num_items, pairs, draws = 1000, 300, 20
    chances = 1 / torch.arange(1, num_items + 1) ** 1.2
    chances /= chances.sum()
    items = F.normalize(torch.randn(num_items, 16), dim=-1).requires_grad_()
    objective = NextItemContrast(1 / 10)
    losses, gradients = torch.zeros(2), [torch.zeros_like(items), torch.zeros_like(items)]
    for _ in range(draws):
        ids = torch.multinomial(chances, 2 * pairs, replacement=True)
        noise = F.normalize(torch.randn(2 * pairs, 16), dim=-1)
        states = F.normalize(items.detach()[ids.roll(-1)] + 0.4 * noise, dim=-1)
        segments = torch.arange(pairs).repeat_interleave(2)  # the first of two tells the second
        sampled = objective(
            StepOutputs(ids, items[ids], states, segments, log_popularity=chances[ids].log())
        )
        exact = F.cross_entropy(10 * states[::2] @ items.T, ids[1::2])
        for place, loss in enumerate((sampled, exact)):
            losses[place] += loss.item() / draws
            gradients[place] += torch.autograd.grad(loss, items)[0]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.06)
    assert (gradients[0].norm() / gradients[1].norm()).item() == pytest.approx(1, abs=0.06)
    assert F.cosine_similarity(*(g.flatten() for g in gradients), dim=0).item() > 0.99


def test_each_item_counts_once_between_its_modalities() -> None:
    step = outputs()
    assert step.projected_embeddings is not None
    chosen = [0, 1, 3]  # 3, 5 and 8 at first sight; 9 has no text
    text, image = step.projected_embeddings[chosen].unbind(1)
    logits = 10 * text @ image.T
    labels = torch.arange(3)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    objective = CrossModalContrast(0.1).double()
    torch.testing.assert_close(objective(step), expected, atol=1e-6, rtol=0)


def test_a_masked_negative_leaves_the_softmax_altogether() -> None:
    # Set to 0 instead of −inf it would still add exp(0), and this loss would not be 0.
    query = torch.tensor([[1.0, 0.0]])
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = info_nce(
        query,
        keys,
        torch.tensor([0]),
        torch.tensor([True]),
        query_ids=torch.tensor([4]),
        key_ids=torch.tensor([4, 4]),
        scale=torch.tensor([5.0]),
    )
    assert loss.item() == 0


def test_a_key_that_does_not_count_leaves_the_softmax_altogether() -> None:
    keys = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    settings = {"query_ids": torch.tensor([0]), "scale": torch.tensor([5.0])}
    query, first, counts = keys[:1], torch.tensor([0]), torch.tensor([True])
    there = info_nce(query, keys[:2], first, counts, key_ids=torch.arange(2), **settings)
    valid = torch.tensor([True, True, False])
    masked = info_nce(
        query, keys, first, counts, key_ids=torch.arange(3), key_valid=valid, **settings
    )
    torch.testing.assert_close(masked, there)


def test_nothing_to_contrast_is_a_loss_of_zero_with_gradient() -> None:
    step = outputs()
    step.present = torch.zeros(6, 2, dtype=torch.bool)
    assert step.projected_embeddings is not None
    step.projected_embeddings.requires_grad_()
    loss = CrossModalContrast(0.1).double()(step)
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(step.projected_embeddings.grad).all()


def item_losses(step: StepOutputs, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """Softmax of slot i's item against its partner's, without what is either of the two."""
    losses = []
    for slot, partner in pairs:
        out = {int(step.item_ids[slot]), int(step.item_ids[partner])}
        keys = [k for k in range(6) if k == partner or int(step.item_ids[k]) not in out]
        scores = 10 * step.items[keys] @ step.items[slot]
        drawn = torch.tensor(keys) != partner
        logits = scores - drawn * (step.log_popularity[keys] + math.log(5))
        losses.append(-logits.log_softmax(0)[keys.index(partner)])
    return torch.stack(losses).mean()


def test_co_engaged_items_are_neighbours_in_a_history() -> None:
    step = outputs()
    # Slots 0–2 and 3–4 are stretches: each slot with the next, the last one with the one before.
    expected = item_losses(step, [(0, 1), (1, 2), (2, 1), (3, 4), (4, 3)])
    found = CoEngagementContrast(0.1).double()(step)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_edges_link_the_two_slots_of_one_number() -> None:
    step = outputs()
    step.links = torch.tensor([4, 4, -1, -1, 6, 6])
    found = EdgeContrast(0.1).double()(step)
    expected = item_losses(step, [(0, 1), (1, 0), (4, 5), (5, 4)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_an_item_is_not_its_own_partner() -> None:
    step = outputs()
    step.item_ids[1] = 3  # slots 0, 1, 2 hold one item now
    found = CoEngagementContrast(0.1).double()(step)
    expected = item_losses(step, [(3, 4), (4, 3)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_reconstruction_counts_hidden_modalities_and_trains_only_the_prediction_heads() -> None:
    step = outputs()
    assert step.present is not None
    step.modality_embeddings = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True)
    step.items.requires_grad_()
    step.visible_mask = step.present.clone()
    step.visible_mask[0, 1] = step.visible_mask[5, 0] = False  # hidden; slot 4 has no text to hide
    objective = FeatureReconstruction(4, 2).double()
    loss = objective(step)
    losses = [
        1
        - F.cosine_similarity(
            objective.prediction_heads[m](step.items[i] * 2), step.modality_embeddings[i, m], dim=0
        )
        for i, m in ((0, 1), (5, 0))
    ]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    loss.backward()
    assert step.modality_embeddings.grad is None
    assert step.items.grad is not None
    assert step.items.grad[[1, 2, 3, 4]].abs().sum() == 0
    assert (step.items.grad[[0, 5]].abs().sum(dim=1) > 0).all()


def test_next_tokens_are_predicted_as_by_a_plain_softmax() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(11, 4).double()
    hidden = torch.randn(3, 5, 4, dtype=torch.float64)
    ids = torch.randint(11, (3, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    found = next_token_nll(hidden, ids, mask, TiedHead(embedding.weight))
    chances = (hidden @ embedding.weight.T).log_softmax(-1)
    for row, length in enumerate((5, 3, 1)):
        token_nll = -sum(chances[row, t - 1, ids[row, t]] for t in range(1, length))
        torch.testing.assert_close(
            found[row, 0], torch.as_tensor(token_nll).float(), atol=1e-5, rtol=0
        )
        assert found[row, 1] == length - 1


def test_each_text_counts_once_in_a_batch() -> None:
    step = outputs()
    step.token_nll = torch.tensor([[6.0, 2], [9, 3], [6, 2], [0, 0], [5, 5], [9, 3]])
    assert LanguageModeling(torch.nn.Identity())(step).item() == (6 + 9 + 5) / (2 + 3 + 5)


def test_an_objective_that_was_asked_for_and_cannot_be_had_is_refused() -> None:
    defaults = ObjectivesConfig()
    assert set(active_weights(defaults, set())) == {"next_item"}
    assert set(active_weights(defaults, {"tokens"})) == {"next_item", "bag_of_words"}
    with pytest.raises(VitrineError, match=r"objectives\.edges is 1, but the catalog has no edges"):
        active_weights(replace(defaults, edges=1.0), {"tokens"})
    with pytest.raises(VitrineError, match="the encoder has one modality only"):
        active_weights(replace(defaults, cross_modal=0.5), {"tokens"})
    with pytest.raises(VitrineError, match="no objective has a weight above 0"):
        active_weights(replace(defaults, next_item=0.0), set())


def test_first_occurrences() -> None:
    ids = torch.tensor([7, 2, 7, 2, 5])
    valid = torch.tensor([False, True, True, True, True])
    assert first_occurrences(ids, valid).tolist() == [False, True, True, False, True]


def test_words_are_predicted_from_the_embedding_and_padding_is_not() -> None:
    step = outputs()
    step.tokens = torch.tensor(
        [[1, 2, -1], [3, -1, -1], [-1, -1, -1], [0, 0, 4], [2, 1, 0], [4, -1, -1]]
    )
    objective = BagOfWords(4, 5).double()
    losses = []
    for slot in (0, 1, 3, 4, 5):
        chances = objective.linear(step.items[slot] * 2).log_softmax(0)
        words = [word for word in step.tokens[slot].tolist() if word >= 0]
        losses.append(-chances[words].mean())
    torch.testing.assert_close(objective(step), torch.stack(losses).mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("special", [[2, 3], [2], [3], []])
def test_an_item_is_described_by_all_its_tokens_and_by_none_that_every_text_has(
    special: list[int],
) -> None:
    """Tokenizers put marks at both ends, at one, or nowhere (GPT-2); a word is never one of them."""
    first, last = [2] if 2 in special else [], [3] if 3 in special else []
    rows = [[*first, 7, 8, 9, *last], [*first, 5, *last]]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    text = {"present": torch.tensor([1, 0, 1]).bool(), "input_ids": ids, "attention_mask": mask}
    found = [[token for token in row if token >= 0] for row in tokens_of(text, special).tolist()]
    assert found == [[7, 8, 9], [], [5]]
