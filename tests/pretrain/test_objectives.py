"""Objectives against brute force: what counts as a negative, and what does not."""

import torch
import torch.nn.functional as F

from pretrain.objectives import (
    BehaviourContrast,
    ModalityContrast,
    StepOutputs,
    WordReconstruction,
)
from pretrain.objectives.base import first_occurrences
from pretrain.objectives.contrast import contrast


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
        text=unit(6, 4),
        image=unit(6, 4),
        text_present=torch.tensor([1, 1, 1, 1, 0, 1]).bool(),
        image_present=torch.tensor([1, 1, 1, 1, 1, 1]).bool(),
    )


def test_behaviour_is_the_softmax_over_other_items_with_popularity_taken_out() -> None:
    step = outputs()
    objective = BehaviourContrast(0.1).double()
    losses = []
    for slot in (0, 1, 3):  # the slots whose next one belongs to the same stretch
        wanted = slot + 1
        logits = []
        for key in range(6):
            if key != wanted and step.item_ids[key] == step.item_ids[wanted]:
                continue
            cosine = step.states[slot] @ step.items[key]
            logits.append(10 * cosine - step.log_popularity[key])
            if key == wanted:
                place = len(logits) - 1
        losses.append(-torch.stack(logits).log_softmax(0)[place])
    torch.testing.assert_close(objective(step), torch.stack(losses).mean(), atol=1e-6, rtol=0)


def test_each_item_counts_once_between_its_modalities() -> None:
    step = outputs()
    assert step.text is not None
    assert step.image is not None
    chosen = [0, 1, 3]  # 3, 5 and 8 at first sight; 9 has no text
    text, image = step.text[chosen], step.image[chosen]
    logits = 10 * text @ image.T
    labels = torch.arange(3)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    objective = ModalityContrast(0.1).double()
    torch.testing.assert_close(objective(step), expected, atol=1e-6, rtol=0)


def test_a_masked_negative_leaves_the_softmax_altogether() -> None:
    # Set to 0 instead of −inf it would still add exp(0), and this loss would not be 0.
    query = torch.tensor([[1.0, 0.0]])
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = contrast(
        query,
        keys,
        torch.tensor([0]),
        torch.tensor([True]),
        query_ids=torch.tensor([4]),
        key_ids=torch.tensor([4, 4]),
        scale=torch.tensor([5.0]),
    )
    assert loss.item() == 0


def test_nothing_to_contrast_is_a_loss_of_zero_with_gradient() -> None:
    step = outputs()
    step.text_present = torch.zeros(6, dtype=torch.bool)
    assert step.text is not None
    step.text.requires_grad_()
    loss = ModalityContrast(0.1).double()(step)
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(step.text.grad).all()


def test_first_occurrences() -> None:
    ids = torch.tensor([7, 2, 7, 2, 5])
    valid = torch.tensor([False, True, True, True, True])
    assert first_occurrences(ids, valid).tolist() == [False, True, True, False, True]


def test_words_are_told_from_the_vector_and_padding_is_not() -> None:
    step = outputs()
    step.tokens = torch.tensor(
        [[1, 2, -1], [3, -1, -1], [-1, -1, -1], [0, 0, 4], [2, 1, 0], [4, -1, -1]]
    )
    objective = WordReconstruction(4, 5).double()
    losses = []
    for slot in (0, 1, 3, 4, 5):
        chances = objective.linear(step.items[slot] * 2).log_softmax(0)
        words = [word for word in step.tokens[slot].tolist() if word >= 0]
        losses.append(-chances[words].mean())
    torch.testing.assert_close(objective(step), torch.stack(losses).mean(), atol=1e-6, rtol=0)
