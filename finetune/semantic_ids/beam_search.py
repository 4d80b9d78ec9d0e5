"""Beam search with constrained decoding: only semantic ids of candidate items are ever generated."""

import torch
import torch.nn.functional as F
from torch import Tensor

from catalog.errors import NonFiniteError
from finetune.finite import nonfinite_cause
from finetune.semantic_ids.model import SemanticRecommender
from finetune.semantic_ids.trie import Trie


@torch.no_grad()
def beam_search(
    model: SemanticRecommender, states: Tensor, width: int, excluded: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The items of highest likelihood after each state, best first, and their log-likelihoods.

    `states` (users, d); `width`: prefixes kept at each level, and items returned; `excluded`: pairs (user,
    item), int64 (e,) each, that must not be generated. A prefix without any allowed item is not expanded.
    Both results are (users, width); item -1 and -inf where there are fewer. With a width of at least the
    number of items the search is exact.
    """
    users, trie = len(states), model.trie
    nodes = torch.zeros(users, 1, dtype=torch.int64, device=states.device)
    scores = torch.zeros(users, 1, device=states.device)
    prefixes = torch.empty(users, 1, 0, dtype=torch.int64, device=states.device)
    for level in range(trie.length):
        beams = nodes.shape[1]
        children = trie.child_nodes(level, nodes.flatten())  # (users · beams, codes)
        log_probs = torch.zeros(children.shape, device=states.device)
        log_probs.masked_fill_(children < 0, float("-inf"))
        # A prefix with a single child has probability 1 there.
        forks = ((children >= 0).sum(dim=1) > 1).nonzero().squeeze(1)
        queries = model.queries(states[forks // beams], prefixes.flatten(0, 1)[forks])[:, -1]
        fork_log_probs = model.log_probs(queries, level, children[forks])
        log_probs[forks] = fork_log_probs.to(log_probs.dtype)
        children, log_probs = children.view(users, beams, -1), log_probs.view(users, beams, -1)
        if log_probs.isnan().any():
            raise NonFiniteError(
                f"the likelihood of a code at level {level} is nan, so no list follows from it: "
                f"{nonfinite_cause(model)}"
            )
        candidates = scores.unsqueeze(2) + log_probs
        candidates[_exhausted_prefixes(trie, level, nodes, excluded)] = float("-inf")
        num_beams = min(width, beams * log_probs.shape[2])
        scores, chosen = candidates.flatten(1).topk(num_beams, dim=1)
        # A beam of score -inf continues at node 0; its score stays -inf.
        nodes = children.flatten(1).gather(1, chosen).clamp(min=0)
        parents = (chosen // log_probs.shape[2]).unsqueeze(2).expand(-1, -1, level)
        codes = (chosen % log_probs.shape[2]).unsqueeze(2)
        prefixes = torch.cat([prefixes.gather(1, parents), codes], dim=2)
    items = torch.where(scores.isfinite(), trie.order[nodes], -1)
    return _padded(items, width, -1), _padded(scores, width, float("-inf"))


def _exhausted_prefixes(
    trie: Trie, level: int, nodes: Tensor, excluded: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (user, beam, code) of the children whose items are all excluded for the user.

    `nodes` (users, beams): the prefixes of the beam.
    """
    users, items = excluded
    depth = level + 1
    if not len(users):
        return users, users, users
    pairs = torch.stack([users, trie.ranks[items]]).unique(dim=1)  # a history may repeat an item
    below = torch.stack([pairs[0], trie.nodes_of(trie.order[pairs[1]], depth)])
    (users, below), counts = below.unique(dim=1, return_counts=True)
    exhausted = counts == trie.num_items_below(depth, below)
    users, below = users[exhausted], below[exhausted]
    above = trie.nodes_of(trie.order[trie.get_buffer(f"starts_{depth}")[below]], level)
    which, beams = (nodes[users] == above.unsqueeze(1)).nonzero(as_tuple=True)
    return users[which], beams, trie.last_codes(depth, below)[which]


def _padded(values: Tensor, width: int, empty: float) -> Tensor:
    return F.pad(values, (0, width - values.shape[1]), value=empty)
