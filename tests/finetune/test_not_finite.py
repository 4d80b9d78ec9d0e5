"""What is not finite ranks, selects and averages nothing: one line says whose it is."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import NonFiniteError, VitrineError
from catalog.splits import make_split
from finetune.ann_index import AnnIndex
from finetune.config import FinetuneConfig
from finetune.ranker import Ranker
from finetune.recommender import Recommender
from finetune.run import run_finetuning
from finetune.selection import BestWeights, Validation
from finetune.semantic_ids.run import run_semantic_ids
from finetune.statistics import difference_interval, mean_interval, ratio_interval
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle
from pretrain.embed_items import embed_items
from pretrain.retrieval import target_ranks
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.vectors_artifact import check_vectors
from tests.finetune.test_odd_domains import histories, write_shop

WIDTH = 8


@pytest.fixture
def bare(settings: FinetuneConfig, tmp_path: Path) -> FinetuneConfig:
    """A shop without pictures."""
    shop = write_shop(tmp_path / "shop", 40, histories([6, 7, 8, 9, 5], 40))
    split = SplitConfig(kind="leave-one-out", repeats="mask")
    return replace(settings, catalog=CatalogConfig(path=str(shop)), split=split)


@pytest.mark.parametrize("run", [run_finetuning, run_semantic_ids])
def test_a_modality_that_no_item_has_is_refused(
    run: Any, bare: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(bare, transfer="zero-shot", modalities="image")
    with pytest.raises(
        NonFiniteError, match=r"no item of shop has a modality that is read \(image\)"
    ):
        run(config, tmp_path / "run", build_trainer)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["text", "image"])
def test_an_item_is_named_with_the_modality_that_breaks_its_vector(
    name: str, settings: FinetuneConfig
) -> None:
    catalog = load_catalog(settings.catalog)
    parts = EncoderBundle.load(Path(settings.encoder))
    with torch.no_grad():
        next(parts.encoder.projections[name].parameters()).fill_(float("nan"))
    out = np.empty((catalog.num_items, 32), dtype=np.float32)
    with pytest.raises(
        NonFiniteError, match=rf"the vector of item '\w+' is not finite: its {name} "
    ):
        embed_items(parts.encoder, parts.content_loader(catalog), out, progress=False)


def test_stored_vectors_are_looked_at_before_they_are_used(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    vectors = np.zeros((catalog.num_items, 4), dtype=np.float32)
    check_vectors(vectors, catalog, "folder")
    vectors[3, 1] = np.inf
    with pytest.raises(
        NonFiniteError, match=rf"for 1 items, first for '{catalog.items[3]['item_id']}'"
    ):
        check_vectors(vectors, catalog, "folder")


def small_shop(num_items: int = 30) -> Ranker:
    torch.manual_seed(0)
    history = SequenceEncoder(SequenceEncoderConfig(width=WIDTH, layers=1, heads=1, max_history=5))
    vectors = torch.nn.functional.normalize(torch.randn(num_items, WIDTH), dim=-1).numpy()
    return Ranker(Recommender(None, history), vectors)


class Proposes:
    """An index that proposes every item."""

    def search(self, states: Any, wanted: int) -> Any:
        return None, np.tile(np.arange(wanted), (len(states), 1))


def test_a_list_is_not_made_of_vectors_that_are_not_finite() -> None:
    shop = small_shop()
    shop.item_vectors[7] = np.nan
    with pytest.raises(NonFiniteError, match="score of item row 7 is not finite"):
        shop.rank(np.array([1, 2]), 5)
    with pytest.raises(NonFiniteError, match="is not finite"):
        AnnIndex(Proposes(), shop).rank(np.array([1, 2]), 5)
    with pytest.raises(NonFiniteError, match="the vector of item row 7 holds nan"):
        shop.user_states([np.array([1, 2]), np.array([3, 7])])


def test_a_state_is_not_made_by_weights_that_are_not_finite() -> None:
    shop = small_shop()
    name, weight = list(shop.recommender.history.named_parameters())[-1]
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=rf"the weights history\.{name} hold nan"):
        shop.rank(np.array([1, 2]), 5)


def test_weights_are_not_selected_by_a_score_that_is_not_finite(settings: FinetuneConfig) -> None:
    catalog = load_catalog(settings.catalog)
    split = make_split(catalog, settings.split)
    shop = small_shop(catalog.num_items)

    def rank(module: Any, targets: Any) -> Any:
        return shop.rank_targets(catalog, targets)

    best = BestWeights(rank, split.validation, Validation(every=1, max_users=20))
    module: Any = torch.nn.Linear(2, 2)
    best.validate(module, 1)
    assert best.best is not None
    shop.item_vectors[:] = np.nan
    with pytest.raises(NonFiniteError):
        best.validate(module, 2)
    assert [step for step, _ in best.curve] == [1]


def test_no_validation_target_is_no_figure(bare: FinetuneConfig, tmp_path: Path) -> None:
    config = replace(
        bare,
        transfer="scratch",
        features="id",
        encoder="",
        split=replace(bare.split, min_history=8),
    )
    config = replace(config, trainer=replace(config.trainer, max_steps=1))
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    metrics = open_artifact(output).manifest["metrics"]
    assert metrics["test/targets"] == 1
    assert metrics["validation_ndcg@10"] is None
    config = replace(config, split=replace(bare.split, min_history=9))
    with pytest.raises(VitrineError, match=r"no test target whose user has 9 or more"):
        run_finetuning(config, tmp_path / "none", build_trainer)


def test_means_of_nonfinite_values_are_refused() -> None:
    values = np.array([0.5, np.nan, 0.1])
    for mean in (
        lambda: mean_interval(values),
        lambda: difference_interval(values, np.zeros(3)),
        lambda: ratio_interval(np.ones(3), values),
    ):
        with pytest.raises(NonFiniteError, match=r"1 of 3 values .* the first that of user 2"):
            mean()
    with pytest.raises(NonFiniteError, match="there are no values to average"):
        mean_interval(np.empty(0))


def test_the_retrieval_report_does_not_compare_what_is_not_finite() -> None:
    candidates = torch.rand(5, 3)
    candidates[2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"of 1 candidates and 0 queries"):
        target_ranks(torch.rand(4, 3), candidates, torch.arange(4))


def test_images_are_not_scored_by_nonfinite_features() -> None:
    from PIL import Image

    from generate.conditioning import CONDITIONS
    from generate.image.encoder_metrics import score_with_encoder

    class Blind:
        def features(self, pictures: Any) -> torch.Tensor:
            found = torch.rand(len(pictures), 4)
            if isinstance(pictures[0], Image.Image):
                found[1] = float("nan")
            return found

    catalog: Any = SimpleNamespace(
        item_image=lambda item, frame: np.zeros((4, 4, 3), np.uint8),
        user_ids=np.array(["ann", "bob"]),
    )
    people: Any = SimpleNamespace(
        users=np.array([0, 1]), histories=[np.array([1]), np.array([2])], items=np.array([3, 4])
    )
    drawn = {condition: [Image.new("RGB", (4, 4))] * 2 for condition in CONDITIONS}
    with pytest.raises(NonFiniteError, match=r"image for user bob \(own\) are not finite"):
        score_with_encoder(drawn, people.items, catalog, people, Blind())
