"""Shops as they may come: each ends in a result or in one clear line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import NonFiniteError, VitrineError
from finetune.baselines.run import run_baseline
from finetune.config import FinetuneConfig, MatrixFactorizationConfig
from finetune.evaluate_artifact import evaluate_recommender
from finetune.recommendations import recommend
from finetune.run import run_finetuning
from launch.trainer import build_trainer

Rows = list[tuple[str, str, int]]


def histories(lengths: list[int], num_items: int, seed: int = 0) -> Rows:
    """(person, item, time) of people who take items at random."""
    rng = np.random.default_rng(seed)
    return [
        (f"p{person}", f"i{rng.integers(num_items)}", 10 * step + person)
        for person, length in enumerate(lengths)
        for step in range(length)
    ]


def spelt(number: int) -> str:
    """Letters, which a small vocabulary knows; of digits it makes one unknown token."""
    return " ".join("abcdefghij"[int(digit)] for digit in str(number))


def write_shop(folder: Path, num_items: int, taken: Rows, titles: str = "A thing no {}") -> Path:
    folder.mkdir()
    items = [
        {"item_id": f"i{n}", "title": titles.format(spelt(n)) or None, "image": None}
        for n in range(num_items)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lines = ["user_id\titem_id\ttimestamp", *("\t".join(map(str, row)) for row in taken)]
    (folder / "interactions.tsv").write_text("\n".join(lines) + "\n")
    return folder


SHOPS: dict[str, tuple[int, Rows, str]] = {
    "at random": (40, histories([3, 9, 5, 7, 4, 12, 6], 40), "A thing no {}"),
    "three items": (3, histories([4, 6, 5], 3), "A thing no {}"),
    "nothing but ids": (30, histories([5, 6, 7, 8], 30), ""),
    "10,000 interactions of one person": (50, histories([10_000, 4, 5], 50), "A thing no {}"),
    "everything twice": (20, sorted(2 * histories([6, 7, 8], 20)), "A thing no {}"),
    "all at one moment": (20, [(p, i, 0) for p, i, _ in histories([6, 7, 8], 20)], "No {}"),
    "one word for all": (25, histories([6, 7, 8, 9], 25), "same"),
    "most took one item": (30, histories([1] * 20 + [4, 5], 30), "A thing no {}"),
}


@pytest.fixture(params=SHOPS)
def shop_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def shop(shop_name: str, tmp_path: Path) -> Path:
    num_items, taken, titles = SHOPS[shop_name]
    return write_shop(tmp_path / "shop", num_items, taken, titles)


@pytest.fixture
def domain(settings: FinetuneConfig, shop_name: str, shop: Path) -> FinetuneConfig:
    repeats = "rank" if shop_name == "everything twice" else "drop"
    return replace(
        settings,
        catalog=CatalogConfig(path=str(shop)),
        split=SplitConfig(kind="leave-one-out", repeats=repeats),
        trainer=replace(settings.trainer, max_steps=2),
    )


@pytest.mark.parametrize("arm", ["lora", "scratch", "content+id", "id", "sampled"])
def test_a_recommender_is_fitted_evaluated_and_used(
    arm: str, shop_name: str, domain: FinetuneConfig, tmp_path: Path
) -> None:
    if arm != "id" and shop_name in ("nothing but ids", "one word for all"):
        why = (
            "no item of shop has a modality that is read" if "ids" in shop_name else "are the same"
        )
        with pytest.raises(NonFiniteError, match=why):
            run_finetuning(replace(domain, transfer="frozen"), tmp_path / "run", build_trainer)
        return
    config = {
        "lora": domain,
        "scratch": replace(domain, transfer="scratch"),
        "content+id": replace(domain, transfer="full", features="content+id"),
        "id": replace(domain, transfer="scratch", features="id", encoder=""),
        "sampled": replace(domain, loss="sampled", negatives=8),
    }[arm]
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    ranks = np.load(output / "test_ranks.npy")
    assert len(ranks)
    assert ranks.min() >= 1
    table = evaluate_recommender(output)
    assert np.isfinite([table["mrr"], table["auc"], table["recall@10"]]).all()
    for history in ("i0", "i0,i1,i0", ",".join(["i0", "i1", "i2"] * 3334), ""):
        found = recommend(output, history=history, k=5)
        assert found.source == ("history" if history else "popularity")
        assert np.isfinite(found.scores).all()
        if domain.split.repeats == "drop":
            assert not set(found.item_ids) & set(history.split(","))
        assert len(set(found.item_ids)) == len(found.item_ids)


@pytest.mark.parametrize("model", ["popularity", "item-knn", "bpr-mf"])
def test_baselines_are_too(model: str, domain: FinetuneConfig, tmp_path: Path) -> None:
    quick = MatrixFactorizationConfig(width=8, batch_size=64, max_epochs=1)
    config = replace(domain, matrix_factorization=quick)
    output = run_baseline(model, config, tmp_path / "run", build_trainer)  # pyright: ignore[reportArgumentType]
    assert np.load(output / "test_ranks.npy").min() >= 1


def test_a_catalog_without_returning_users_is_refused(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    shop = write_shop(tmp_path / "shop", 9, histories([1] * 6, 9))
    split = SplitConfig(kind="leave-one-out")
    config = replace(settings, catalog=CatalogConfig(path=str(shop)), split=split)
    with pytest.raises(VitrineError, match="no test target whose user has 1 or more interactions"):
        run_finetuning(config, tmp_path / "run", build_trainer)


def test_a_shop_at_one_moment_cannot_be_split_by_time(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    taken = [(p, i, 0) for p, i, _ in histories([6, 7, 8], 20)]
    shop = write_shop(tmp_path / "shop", 20, taken)
    config = replace(settings, catalog=CatalogConfig(path=str(shop)))
    with pytest.raises(VitrineError, match=r"set split\.kind: leave-one-out"):
        run_finetuning(config, tmp_path / "run", build_trainer)
