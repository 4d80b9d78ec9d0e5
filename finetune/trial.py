"""One trial of a hyperparameter search: validation NDCG@10 of a model, in a catalog without test targets."""

from pathlib import Path

from catalog.errors import VitrineError
from catalog.splits import load_split, without_test_targets
from finetune.baselines.run import fit_baseline
from finetune.config import FinetuneConfig, Model
from finetune.fit import fit_each
from finetune.fitting import FitRequest
from finetune.semantic_ids.fit import fit_semantic_ids
from pretrain.run import TrainerFactory


def run_trial(
    model: Model, config: FinetuneConfig, output: Path, build_trainer: TrainerFactory
) -> float:
    """NDCG@10 of the validation targets; leaves no artifact, only checkpoints beside `output` meanwhile.

    Test targets and later interactions are removed before training, so that no number of trials can
    select settings by them. Raises VitrineError without validation targets.
    """
    catalog, split = load_split(config.catalog, config.split)
    if not len(split.validation):
        raise VitrineError(
            f"the split of {catalog.name} has no validation targets, and settings are chosen by "
            "nothing else; set another split, or search.trials: 0"
        )
    catalog, split = without_test_targets(catalog, split)
    request = FitRequest(config, catalog, split, output, build_trainer)
    if model == "vitrine":
        scores = [fitted.training.best.best for fitted in fit_each(request).values()]
    elif model == "semantic-ids":
        scores = [fit_semantic_ids(request).training.best.best]
    else:
        scores = [fit_baseline(model, request).validation_ndcg]
    if None in scores:
        raise VitrineError(
            f"no validation target was ranked in training (trainer.strategy {config.trainer.strategy}), "
            "and settings are chosen by nothing else; use another strategy, or search.trials: 0"
        )
    return max(score for score in scores if score is not None)
