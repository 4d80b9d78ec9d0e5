"""Full fine-tuning: pretrained towers move slowly, late, and with the whitening after them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.splits import make_split
from finetune.assembly import assemble
from finetune.cache import CacheRefresh
from finetune.components import build_components
from finetune.config import FinetuneConfig
from finetune.data import FinetuneBatch, FinetuneData
from finetune.fitting import FitRequest
from finetune.item_content import build_content_loader, initial_embeddings
from finetune.manifest import read_curves
from finetune.module import FinetuneModule, StepSettings, remove_common_shift
from finetune.run import run_finetuning
from pretrain.towers.projection import Projection
from tests.finetune.test_transfer import build_trainer
from tests.stages import train, write_settings

STEPS = 10


@pytest.fixture
def full(settings: FinetuneConfig) -> FinetuneConfig:
    return replace(settings, transfer="full")


def module_of(config: FinetuneConfig) -> tuple[FinetuneModule, CacheRefresh]:
    """As a run begins, and what reads its cache anew."""
    catalog = load_catalog(config.catalog)
    split = make_split(catalog, config.split)
    components = build_components(config, catalog)
    built = assemble(components, config, catalog.num_items)
    loader = build_content_loader(config, catalog, components.parts)
    request = FitRequest(config, catalog, split, Path(), build_trainer)
    width = built.recommender.content_width
    content = initial_embeddings(request, components, loader, width)
    assert content is not None
    assert components.parts is not None
    assert loader is not None
    built.recommender.adaptor.whiten(content)
    module = FinetuneModule(
        built.recommender,
        content,
        torch.from_numpy(split.train_counts),
        StepSettings(config.optimizer, encoder_learning=config.encoder_learning),
    )
    module._trainer = SimpleNamespace(max_steps=STEPS)  # pyright: ignore[reportAttributeAccessIssue]
    return module, CacheRefresh(components.parts.encoder, loader)


def batch_of(config: FinetuneConfig) -> FinetuneBatch:
    """Its first step's."""
    catalog = load_catalog(config.catalog)
    split = make_split(catalog, config.split)
    components = build_components(config, catalog)
    loader = build_content_loader(config, catalog, components.parts)
    length = components.history.config.max_history
    data = FinetuneData(catalog, split, loader, config.data, row_length=length, seed=0)
    return data.collate([data.rows[row] for row in range(config.data.rows)])


def rates_of(module: FinetuneModule, step: int) -> dict[str, float]:
    """The learning rate of each weight in a step."""
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _ in range(step):
        optimizer.step()
        schedule.step()
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[p] for name, p in module.named_parameters() if p in rates}


def test_whitening_follows_towers_that_move(full: FinetuneConfig) -> None:
    module, refresh = module_of(full)
    encoder, adaptor = module.recommender.encoder, module.recommender.adaptor
    assert encoder is not None
    with torch.no_grad():
        for projection in encoder.projections.values():
            assert isinstance(projection, Projection)
            projection.norm.bias.add_(3.0)  # a shift that all items share
        refresh(module)
        assert module.content is not None
        whitened = adaptor(module.content)
    spread = whitened.var(dim=0).sum().sqrt()
    assert whitened.mean(dim=0).norm() < 0.01 * spread


def test_the_pretrained_encoder_stands_still_during_the_warm_up(full: FinetuneConfig) -> None:
    module, _ = module_of(replace(full, encoder_warmup=0.3))
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    encoder = module.recommender.encoder
    assert encoder is not None
    before = [p.detach().clone() for p in encoder.parameters()]
    moved = []
    for _ in range(5):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        schedule.step()
        now = list(encoder.parameters())
        moved.append(not all(torch.equal(a, b) for a, b in zip(before, now, strict=True)))
    assert moved == [False, False, False, True, True]
    assert all(float(optimizer.state[p]["step"]) == 5 for p in encoder.parameters()), (
        "its moments are kept from the first step"
    )


def test_pretrained_towers_learn_slower_than_projections_and_these_than_what_is_new(
    full: FinetuneConfig,
) -> None:
    rates = rates_of(module_of(full)[0], step=STEPS // 2)
    towers = {rate for name, rate in rates.items() if ".towers." in name}
    between = {rate for name, rate in rates.items() if ".projections." in name or ".gate." in name}
    assert len(towers) == len(between) == 1
    assert 10 * max(towers) <= 1.01 * max(between)
    assert max(between) < rates["recommender.adaptor.linear.weight"]


@pytest.mark.parametrize(("transfer", "share"), [("full", 0.005), ("lora", 0.2), ("scratch", 0.2)])
def test_the_towers_rate_depends_on_what_they_begin_with(
    transfer: str, share: float, settings: FinetuneConfig
) -> None:
    config = replace(settings, transfer=transfer)
    assert config.encoder_learning.tower_rate == share
    assert replace(config, tower_rate=0.5).encoder_learning.tower_rate == 0.5
    assert (config.encoder_learning.warmup > 0) == (transfer == "full")


def test_layer_decay_reaches_fine_tuning(full: FinetuneConfig) -> None:
    optimizer = replace(full.optimizer, layer_decay=0.5)
    rates = rates_of(module_of(replace(full, optimizer=optimizer))[0], step=STEPS // 2)
    layer = next(rate for name, rate in rates.items() if ".towers.text.encoder.layer.0." in name)
    words = next(rate for name, rate in rates.items() if "towers.text.embeddings.word" in name)
    assert words == pytest.approx(layer / 2)


def test_what_all_fresh_items_moved_by_together_marks_none_of_them() -> None:
    cached = torch.randn(6, 4)
    own = torch.randn(6, 4)
    own -= own.mean(dim=0)
    fresh = (cached + own + 5.0).requires_grad_()
    seen = remove_common_shift(fresh, cached)
    torch.testing.assert_close(seen, cached + own)
    (seen * torch.randn(6, 4)).sum().backward()
    assert fresh.grad is not None
    torch.testing.assert_close(fresh.grad.sum(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    assert remove_common_shift(fresh[:1], cached[:1]) is not cached, "one item keeps its gradient"
    assert torch.equal(remove_common_shift(fresh[:1], cached[:1]), fresh[:1])


def test_the_cache_stays_where_the_whitening_was_fitted(full: FinetuneConfig) -> None:
    module, _ = module_of(full)
    module.log = lambda *args, **kwargs: None  # pyright: ignore[reportAttributeAccessIssue]
    encoder, before = module.recommender.encoder, module.content
    assert encoder is not None
    assert before is not None
    before = before.clone()
    batch = batch_of(full)
    with torch.no_grad():
        for projection in encoder.projections.values():
            assert isinstance(projection, Projection)
            projection.norm.bias.add_(0.5)
        shifted = encoder(batch.content).item - before[batch.fresh]
    module.training_step(batch, 0)
    assert module.content is not None
    moved = (module.content - before)[batch.fresh]
    assert moved.mean(dim=0).norm() < 0.01 * shifted.mean(dim=0).norm()


def test_full_fine_tuning_ranks_nearly_as_well_as_frozen_at_a_high_rate(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    """Towers that moved at once, and from under their whitening, ranked half as well."""
    last = {}
    for transfer in ("frozen", "full"):
        config = replace(
            settings,
            transfer=transfer,
            validate_every=24,
            optimizer=replace(settings.optimizer, learning_rate=0.02),
            trainer=replace(settings.trainer, max_steps=24),
        )
        output = run_finetuning(config, tmp_path / transfer, build_trainer)
        last[transfer] = open_artifact(output).manifest["metrics"]["validation_ndcg@10"]
    assert last["full"] >= 0.8 * last["frozen"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_the_warm_up_is_the_same_on_any_shards(
    strategy: str, full: FinetuneConfig, tmp_path: Path
) -> None:
    steps = replace(
        full,
        dropout=0.0,
        encoder_warmup=0.5,
        validate_every=4,
        trainer=replace(full.trainer, accelerator="cpu", log_every=1, max_steps=4),
    )
    settings = write_settings(steps, tmp_path / "full.yaml")
    losses = []
    for name, kind, devices in (("whole", "ddp", 2), ("shards", strategy, 2)):
        train(settings, tmp_path / name, kind, devices)
        losses.append(read_curves(tmp_path / name)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
