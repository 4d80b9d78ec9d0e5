"""Likelihood of true texts under each condition: NLL per token, perplexity, identification of users."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.errors import NonFiniteError
from finetune.statistics import ratio_interval
from generate.conditioning import CONDITIONS, Condition
from generate.evaluation.identification import (
    NUM_CANDIDATES,
    draw_candidates,
    identification_figures,
    identification_hits,
)
from generate.evaluation.intervals import Figures
from generate.evaluation.users import EvaluationUsers
from generate.requests import GenerationRequest
from generate.text.writer import BatchWriter


@dataclass(frozen=True)
class TrueTexts:
    """The true texts of one task for evaluation users, and whether the item condition is given."""

    task: str
    texts: Sequence[str | None]
    """(num_users,); None where the user has no text."""
    with_item: bool = True

    def present(self) -> NDArray[np.int64]:
        """Indices of the users who have a text."""
        return np.array([index for index, text in enumerate(self.texts) if text], dtype=np.int64)

    def of(self, indices: Sequence[int]) -> list[str]:
        return [self.texts[index] or "" for index in indices]


def score_likelihood(
    writer: BatchWriter, users: EvaluationUsers, true: TrueTexts, batch_size: int = 64
) -> Figures:
    """NLL per token and perplexity under each condition, and differences to own, in nats per token.

    Ratios of sums over tokens are compared, so users are weighted by the length of their text.
    """
    nll, counts = nll_by_condition(writer, users, true, batch_size)
    figures: Figures = {"texts": len(counts)}
    if len(counts) < 2:
        return figures
    for condition, losses in nll.items():
        mean = ratio_interval(losses, counts)
        figures[condition] = {"token_nll": asdict(mean), "perplexity": float(np.exp(mean.value))}
    for condition in ("swapped", "none"):
        difference = ratio_interval(nll[condition] - nll["own"], counts)
        figures[f"{condition}_minus_own"] = asdict(difference)
    return figures


def nll_by_condition(
    writer: BatchWriter, users: EvaluationUsers, true: TrueTexts, batch_size: int = 64
) -> tuple[dict[Condition, NDArray[np.float64]], NDArray[np.float64]]:
    """Summed NLL (nats) of the texts that there are, under each condition, and their numbers of tokens:
    (texts,) all."""
    present = true.present()
    nll: dict[Condition, NDArray[np.float64]] = {
        condition: np.empty(len(present)) for condition in CONDITIONS
    }
    counts = np.empty(len(present))
    for start in range(0, len(present), batch_size):
        batch = present[start : start + batch_size].tolist()
        rows = slice(start, start + len(batch))
        for condition in CONDITIONS:
            nll[condition][rows], counts[rows] = _batch_nll(writer, users, true, condition, batch)
    return nll, counts


def _batch_nll(
    writer: BatchWriter,
    users: EvaluationUsers,
    true: TrueTexts,
    condition: Condition,
    indices: list[int],
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Summed NLL and number of tokens of the texts at `indices`; NonFiniteError where a sum is not finite."""
    items = users.items[indices].tolist() if true.with_item else [None] * len(indices)
    requests = users.requests(condition, items, [0] * len(indices), indices)
    nll, counts = writer.text_nll(requests, true.task, true.of(indices))
    if not nll.isfinite().all():
        index = indices[int((~nll.isfinite()).nonzero()[0])]
        raise NonFiniteError(
            f"the likelihood of the {true.task} of user row {users.users[index]} ({condition}) is not "
            "finite; look at that text and at the generator's weights"
        )
    return nll.cpu().numpy(), counts.cpu().numpy()


def score_identification(
    writer: BatchWriter,
    users: EvaluationUsers,
    true: TrueTexts,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> Figures:
    """How often a true text is most likely under its own user, among NUM_CANDIDATES users."""
    present = true.present()
    if len(np.unique(users.users[present])) < NUM_CANDIDATES:
        return {"count": len(present)}
    return identification_figures(
        identify_texts(writer, users, true, seed=seed, batch_size=batch_size)
    )


def identify_texts(
    writer: BatchWriter,
    users: EvaluationUsers,
    true: TrueTexts,
    *,
    num_candidates: int = NUM_CANDIDATES,
    seed: int = 0,
    batch_size: int = 64,
) -> NDArray[np.float64]:
    """Whether each true text is most likely under its own user: (texts,), 1 or 0; ties share a hit."""
    present = true.present()
    candidates = present[draw_candidates(users.users[present], num_candidates, seed)]
    compute = _nll_with_item if true.with_item else _nll_without_item
    hits = np.empty(len(present))
    done = 0
    for nll in compute(writer, users, true, present, candidates, batch_size):
        lowest = nll.min(dim=1, keepdim=True).values
        is_lowest = torch.isclose(nll, lowest, rtol=1e-6, atol=0)
        hits[done : done + len(nll)] = identification_hits(is_lowest)
        done += len(nll)
    return hits


def _nll_with_item(
    writer: BatchWriter,
    users: EvaluationUsers,
    true: TrueTexts,
    present: NDArray[np.int64],
    candidates: NDArray[np.int64],
    batch_size: int,
) -> Iterator[Tensor]:
    """NLL of the texts at `present` under each of their candidates, float64 (some texts, candidates) at a
    time."""
    num_candidates = candidates.shape[1]
    texts_at_once = max(1, batch_size // num_candidates)
    for start in range(0, len(present), texts_at_once):
        rows = slice(start, start + texts_at_once)
        requests: list[GenerationRequest] = []
        for index, among in zip(present[rows].tolist(), candidates[rows].tolist(), strict=True):
            item = int(users.items[index])
            requests += users.requests("own", [item] * num_candidates, [0] * num_candidates, among)
        texts = [text for text in true.of(present[rows].tolist()) for _ in range(num_candidates)]
        nll, _ = writer.text_nll(requests, true.task, texts)
        yield nll.double().cpu().reshape(-1, num_candidates)


def _nll_without_item(
    writer: BatchWriter,
    users: EvaluationUsers,
    true: TrueTexts,
    present: NDArray[np.int64],
    candidates: NDArray[np.int64],
    batch_size: int,
) -> Iterator[Tensor]:
    """As `_nll_with_item`, in one part: a candidate's prompt is the same for all texts, and is read once.

    Users whose prompts are equal share one, so that they are exactly as likely.
    """
    nothing: list[Any] = [None] * len(present)
    requests = users.requests("own", nothing, [0] * len(present), present.tolist())
    prompts, prompt_of = writer.distinct_prompts(requests, true.task)
    prompt_at = np.empty(len(users), dtype=np.int64)
    prompt_at[present] = prompt_of
    nll = torch.empty(candidates.shape, dtype=torch.float64)
    texts = true.of(present.tolist())
    asked = prompt_at[candidates]
    for number, prompt in enumerate(prompts):
        rows, columns = (asked == number).nonzero()
        needed, place = np.unique(rows, return_inverse=True)
        parts = [
            writer.shared_prompt_nll(prompt, true.task, [texts[row] for row in part])
            for part in np.split(needed, range(batch_size, len(needed), batch_size))
        ]
        nll[rows, columns] = torch.cat(parts).double().cpu()[place]
    yield nll
