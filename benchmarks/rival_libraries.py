"""Cornac's and implicit's side of `benchmarks.rivals`: fits one of their models and writes its scores.

Runs in an environment of its own, so it imports nothing of the project.
"""

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix  # pyright: ignore[reportMissingImports]

LOWEST = -1e9
"""Score of items that were not in a library's training data."""
State = list[np.ndarray]
Score = Callable[[State, np.ndarray], np.ndarray]
"""(learned parameters, users (n,)) → scores (n, num_items)."""


class ShopData:
    """Training interactions, and histories and targets for evaluation."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "shop.npz") as found:
            self.arrays = dict(found)
        self.num_items, ends = int(self.arrays["num_items"]), self.arrays["train_end"]
        self.num_users = len(ends)
        self.users = np.repeat(np.arange(self.num_users), ends)
        places = np.concatenate([np.arange(end) for end in ends])
        self.items = self.arrays["items"][self.arrays["offsets"][self.users] + places].astype(
            np.int64
        )
        ones = np.ones(len(self.users), dtype=np.float32)
        shape = (self.num_users, self.num_items)
        self.matrix = csr_matrix((ones, (self.users, self.items)), shape=shape)
        self.matrix.data[:] = 1.0
        self.cold = np.bincount(self.items, minlength=self.num_items) == 0

    def targets(
        self, name: str, most: int | None = None
    ) -> tuple[np.ndarray, csr_matrix, np.ndarray]:
        """Users, histories (targets, num_items) and target items of a part of the split."""
        users, positions = self.arrays[f"{name}_users"], self.arrays[f"{name}_positions"]
        if most is not None:
            chosen = np.random.default_rng(0).permutation(len(users))[:most]
            users, positions = users[chosen], positions[chosen]
        rows = np.repeat(np.arange(len(users)), positions)
        within = np.concatenate([np.arange(position) for position in positions])
        items = self.arrays["items"][self.arrays["offsets"][users[rows]] + within]
        ones = np.ones(len(rows), dtype=np.float32)
        history = csr_matrix((ones, (rows, items)), shape=(len(users), self.num_items))
        history.data[:] = 1.0
        return users, history, self.arrays["items"][self.arrays["offsets"][users] + positions]


def ndcg(scores: np.ndarray, history: csr_matrix, targets: np.ndarray) -> float:
    """Mean NDCG@10 of one target each, without items of the history; ties rank the target first."""
    found = history.tocoo()
    scores = scores.copy()
    mine = scores[np.arange(len(targets)), targets].copy()
    scores[found.row, found.col] = -np.inf
    ranks = 1 + (scores > mine[:, None]).sum(axis=1)
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0).mean())


class Patience:
    """Early stopping: keeps the state with the best validation NDCG@10, with a given patience."""

    def __init__(self, shop: ShopData, score: Score, settings: dict[str, Any]) -> None:
        self.users, self.history, self.targets = shop.targets("validation", settings["max_users"])
        self.score, self.patience = score, settings["patience"]
        self.best, self.waited, self.state = -1.0, 0, []

    def look(self, state: State) -> bool:
        found = ndcg(self.score(state, self.users), self.history, self.targets)
        if found > self.best:
            self.best, self.waited, self.state = found, 0, [part.copy() for part in state]
        else:
            self.waited += 1
        return self.waited >= self.patience


def popularity(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from cornac.models import MostPop  # pyright: ignore[reportMissingImports]

    data, _, items = cornac_data(shop)
    model = MostPop().fit(data)
    scores = np.full(shop.num_items, LOWEST, dtype=np.float32)
    scores[items] = model.score(0)
    return -1.0, np.tile(scores, (len(shop.targets("test")[0]), 1))


def item_knn(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    import implicit.nearest_neighbours as models  # pyright: ignore[reportMissingImports]

    settings = dict(settings)
    max_users, name = settings.pop("max_users"), settings.pop("model")
    model = getattr(models, name)(num_threads=1, **settings)
    model.fit(shop.matrix, show_progress=False)

    def scores(history: csr_matrix) -> np.ndarray:
        return (history @ model.similarity).toarray().astype(np.float32)

    _, history, targets = shop.targets("validation", max_users)
    best = ndcg(scores(history), history, targets)
    return best, scores(shop.targets("test")[1])


def bpr(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    settings = dict(settings)
    which = settings.pop("library")
    return (cornac_bpr if which == "cornac" else implicit_bpr)(shop, settings)


def cornac_bpr(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from cornac.models import BPR  # pyright: ignore[reportMissingImports]

    data, users, items = cornac_data(shop)

    def score(state: State, chosen: np.ndarray) -> np.ndarray:
        tastes = np.zeros((shop.num_users, state[0].shape[1]), dtype=np.float32)
        tastes[users] = state[0]
        scores = np.full((len(chosen), shop.num_items), LOWEST, dtype=np.float32)
        scores[:, items] = tastes[chosen] @ state[1].T + state[2]
        return scores

    patience = Patience(shop, score, settings)
    names = ("k", "learning_rate", "lambda_reg", "seed")
    model = BPR(max_iter=settings["look_every"], **{name: settings[name] for name in names})
    for _ in range(settings["max_looks"]):  # a fitted model continues from its weights
        model.fit(data)
        if patience.look([model.u_factors, model.i_factors, model.i_biases]):
            break
    return patience.best, score(patience.state, shop.targets("test")[0])


def implicit_bpr(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    from implicit.cpu.bpr import (  # pyright: ignore[reportMissingImports]
        BayesianPersonalizedRanking,
    )

    def score(state: State, chosen: np.ndarray) -> np.ndarray:
        scores = state[0][chosen] @ state[1].T
        scores[:, shop.cold] = LOWEST
        return scores

    patience = Patience(shop, score, settings)
    model = BayesianPersonalizedRanking(
        factors=settings["k"],
        learning_rate=settings["learning_rate"],
        regularization=settings["lambda_reg"],
        iterations=settings["look_every"],
        num_threads=1,
        # With a seed, each call of `fit` would draw the same triplets again.
        random_state=np.random.default_rng(settings["seed"]),
    )
    for _ in range(settings["max_looks"]):
        model.fit(shop.matrix, show_progress=False)
        if patience.look([model.user_factors, model.item_factors]):
            break
    return patience.best, score(patience.state, shop.targets("test")[0])


class Enough(Exception):
    """Stops the training of a library that has no early stopping."""


VBPR_SETTINGS = (
    "k",
    "k2",
    "batch_size",
    "learning_rate",
    "lambda_w",
    "lambda_b",
    "lambda_e",
    "seed",
)
"""Arguments of Cornac's VBPR that the settings name."""


def vbpr(shop: ShopData, settings: dict[str, Any]) -> tuple[float, np.ndarray]:
    """Cornac's VBPR with early stopping: its weights are evaluated at the start of an epoch.

    Cornac 3.0.1 adds the content bias as (n, 1) to scores of shape (n,), which broadcasts to (n, n): each
    triplet's loss is summed over all content biases of the batch, and regularization weighs 1/n. With
    `repaired` the content bias has the shape (n,).
    """
    import torch
    from cornac.data import ImageModality  # pyright: ignore[reportMissingImports]
    from cornac.models import VBPR  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    data, users, items = cornac_data(shop)
    content = shop.arrays["content"]
    ids = list(range(len(items)))
    features = ImageModality(features=content[items], ids=ids, normalized=False)
    data.add_modalities(item_image=features)
    data.item_image.build(id_map={place: place for place in ids})

    def score(state: State, chosen: np.ndarray) -> np.ndarray:
        bias, of_users, select_items, tastes, projection, content_bias = state
        rows = np.full(shop.num_users, -1)
        rows[users] = np.arange(len(users))
        known = rows[chosen]
        scores = (tastes[known] @ projection.T) @ content.T + (content @ content_bias).ravel()
        scores[:, items] += of_users[known] @ select_items.T + bias
        return scores.astype(np.float32)

    patience = Patience(shop, score, settings)
    weights: list[Any] = []
    plain_adam, plain_batches, epoch = torch.optim.Adam, data.uij_iter, [0]
    plain_product = torch.Tensor.mm

    def adam(parameters: list[Any], **options: Any) -> Any:
        weights[:] = parameters
        return plain_adam(parameters, **options)

    def batches(*arguments: Any, **options: Any) -> Iterator[Any]:
        is_due = epoch[0] and epoch[0] % settings["look_every"] == 0
        if is_due and patience.look([part.detach().numpy() for part in weights]):
            raise Enough
        epoch[0] += 1
        return plain_batches(*arguments, **options)

    def product(left: Any, right: Any) -> Any:
        found = plain_product(left, right)
        return found.squeeze(1) if right is weights[-1] else found

    torch.optim.Adam, data.uij_iter = adam, batches  # pyright: ignore[reportAttributeAccessIssue]
    if settings["repaired"]:
        torch.Tensor.mm = product  # pyright: ignore[reportAttributeAccessIssue]
    model = VBPR(
        n_epochs=settings["look_every"] * settings["max_looks"] + 1,
        verbose=False,
        **{name: settings[name] for name in VBPR_SETTINGS},
    )
    with contextlib.suppress(Enough):
        model.fit(data)
    return patience.best, score(patience.state, shop.targets("test")[0])


def cornac_data(shop: ShopData) -> tuple[Any, np.ndarray, np.ndarray]:
    """Cornac's data set, and the user and item rows of its own indices."""
    from cornac.data import Dataset  # pyright: ignore[reportMissingImports]

    pairs = sorted(set(zip(shop.users.tolist(), shop.items.tolist(), strict=True)))
    data = Dataset.from_uir([(user, item, 1.0) for user, item in pairs], seed=0)
    return data, np.array(list(data.uid_map)), np.array(list(data.iid_map))


MODELS = {"popularity": popularity, "item-knn": item_knn, "bpr-mf": bpr, "vbpr": vbpr}


def main(folder: Path, model: str, settings: dict[str, Any]) -> None:
    """Writes `scores.npy`, float32 (test targets, num_items), and `validation.json`."""
    warnings.filterwarnings("ignore")
    best, scores = MODELS[model](ShopData(folder), settings)
    np.save(folder / "scores.npy", scores)
    (folder / "validation.json").write_text(json.dumps(best))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
