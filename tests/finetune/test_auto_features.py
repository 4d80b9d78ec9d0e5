"""Features chosen on validation, and how often the cache of item vectors is refreshed."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.artifacts import is_complete, open_artifact
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from finetune.cache import CacheRefresh
from finetune.config import FinetuneConfig
from finetune.module import FinetuneModule
from finetune.run import run_finetuning
from pretrain.config import TrainerConfig
from pretrain.request import result_request
from pretrain.vector_file import open_vectors
from tests.finetune.test_transfer import build_trainer, ranks_as_it_did


def test_auto_selects_the_features_that_rank_validation_better(
    settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="auto", validate_every=1)
    output = run_finetuning(config, tmp_path / "auto", build_trainer)
    manifest = open_artifact(output).manifest
    figures: dict[str, float] = manifest["metrics"]
    reached = {n: figures[f"validation_ndcg@10/{n}"] for n in ("content", "content+id")}
    chosen = manifest["config"]["features"]
    assert figures["validation_ndcg@10"] == reached[chosen] == max(reached.values())
    for features, value in reached.items():
        alone = replace(config, features=features)
        run = run_finetuning(alone, tmp_path / features, build_trainer)
        assert open_artifact(run).manifest["metrics"]["validation_ndcg@10"] == value
        if features == chosen:
            np.testing.assert_array_equal(
                open_vectors(output / "item_vectors.safetensors"),
                open_vectors(run / "item_vectors.safetensors"),
            )
    ranks_as_it_did(output, replace(config, features=chosen))
    request = result_request(
        "recommender", asdict(config), {"encoder": config.encoder}, manifest["catalog"]
    )
    assert is_complete(output, request), "asked for again, nothing is trained again"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfer": "zero-shot"}, "zero-shot trains nothing; use --features content or"),
        ({"trainer": TrainerConfig(strategy="zero3")}, "zero3 keeps no best weights"),
        ({"split": SplitConfig(min_history=16)}, "no validation targets, and auto chooses"),
    ],
)
def test_auto_is_refused_where_validation_cannot_choose(
    changes: dict[str, Any], message: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, features="auto", **changes)
    with pytest.raises(VitrineError, match=message):
        run_finetuning(config, tmp_path / "auto", build_trainer)


@pytest.mark.parametrize(("every", "validate_every", "readings"), [(0, 2, 2), (1, 2, 4), (3, 4, 2)])
def test_the_cache_is_refreshed_as_often_as_configured(
    every: int,
    validate_every: int,
    readings: int,
    settings: FinetuneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    once = CacheRefresh.__call__

    def counted(self: CacheRefresh, module: FinetuneModule, step: int = -1) -> None:
        read.append(step)
        once(self, module, step)

    monkeypatch.setattr(CacheRefresh, "__call__", counted)
    data = replace(settings.data, refresh_every=every)
    config = replace(settings, data=data, validate_every=validate_every)
    run_finetuning(config, tmp_path / "run", build_trainer)
    assert read[-1] == -1, "what is stored is what the best weights make"
    assert len(read) == readings + 1
    assert len(set(read)) == len(read), "twice at the same step"


def test_a_negative_refresh_interval_is_refused(settings: FinetuneConfig, tmp_path: Path) -> None:
    data = replace(settings.data, refresh_every=-1)
    with pytest.raises(VitrineError, match="refresh_every is -1; give 0 or more"):
        run_finetuning(replace(settings, data=data), tmp_path / "run", build_trainer)
