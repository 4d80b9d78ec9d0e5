"""Beam search that can say nothing but items on sale: the likeliest identifiers after a state."""

import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.errors import NonFiniteError
from finetune.finite import nonfinite_cause
from finetune.semantic.model import SemanticRecommender
from finetune.semantic.trie import Trie


@torch.no_grad()
def beam_search(
    model: SemanticRecommender, states: Tensor, width: int, excluded: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The likeliest items after each state, best first, and their log-likelihoods.

    `states` (people, d); `width`: beginnings kept at each level, and items found; `excluded`: pairs
    (person, item), int64 (e,) each, that are not to be found. A beginning of which no item is left
    is not followed. Both results are (people, width); item -1 and -inf where there are fewer.
    With no less width than items it is exact.
    """
    people, trie = len(states), model.trie
    nodes = torch.zeros(people, 1, dtype=torch.int64, device=states.device)
    scores = torch.zeros(people, 1, device=states.device)
    begun = torch.empty(people, 1, 0, dtype=torch.int64, device=states.device)
    for level in range(trie.length):
        beams = nodes.shape[1]
        branches = trie.branches(level, nodes.flatten())  # (people · beams, codes)
        chances = torch.zeros(branches.shape, device=states.device)
        chances.masked_fill_(branches < 0, float("-inf"))
        forks = ((branches >= 0).sum(dim=1) > 1).nonzero().squeeze(1)  # elsewhere all is said
        queries = model.queries(states[forks // beams], begun.flatten(0, 1)[forks])[:, -1]
        told = model.log_chances(queries, level, branches[forks])
        chances[forks] = told.to(chances.dtype)
        branches, chances = branches.view(people, beams, -1), chances.view(people, beams, -1)
        if chances.isnan().any():
            raise NonFiniteError(
                f"the likelihood of a code at level {level} is nan, so no list follows from it: "
                f"{nonfinite_cause(model)}"
            )
        told = scores.unsqueeze(2) + chances
        told[_exhausted(trie, level, nodes, excluded)] = float("-inf")
        kept = min(width, beams * chances.shape[2])
        scores, chosen = told.flatten(1).topk(kept, dim=1)
        # A beam that died goes on from node 0, where it cannot come back to life.
        nodes = branches.flatten(1).gather(1, chosen).clamp(min=0)
        parents = (chosen // chances.shape[2]).unsqueeze(2).expand(-1, -1, level)
        codes = (chosen % chances.shape[2]).unsqueeze(2)
        begun = torch.cat([begun.gather(1, parents), codes], dim=2)
    items = torch.where(scores.isfinite(), trie.order[nodes], -1)
    return _filled(items, width, -1), _filled(scores, width, float("-inf"))


def _exhausted(
    trie: Trie, level: int, nodes: Tensor, excluded: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Where (person, beam, code) leads to a node whose items are all excluded for the person.

    `nodes` (people, beams), those that are followed.
    """
    people, items = excluded
    depth = level + 1
    if not len(people):
        return people, people, people
    pairs = torch.stack([people, trie.places[items]]).unique(dim=1)  # a history may repeat itself
    below = torch.stack([pairs[0], trie.nodes_of(trie.order[pairs[1]], depth)])
    (people, below), counts = below.unique(dim=1, return_counts=True)
    spent = counts == trie.num_items_below(depth, below)
    people, below = people[spent], below[spent]
    above = trie.nodes_of(trie.order[trie.get_buffer(f"starts_{depth}")[below]], level)
    which, beams = (nodes[people] == above.unsqueeze(1)).nonzero(as_tuple=True)
    return people[which], beams, trie.last_codes(depth, below)[which]


def _filled(values: Tensor, width: int, empty: float) -> Tensor:
    return F.pad(values, (0, width - values.shape[1]), value=empty)
