"""Tries settings: how well they rank the validation targets, in a catalog that has no test targets."""

from pathlib import Path

from catalog.errors import VitrineError
from catalog.splits import load_split, without_test_targets
from finetune.baselines.run import fit_baseline
from finetune.config import FinetuneConfig, Model
from finetune.run import fit_each
from finetune.semantic_ids.run import fit_semantic_ids
from pretrain.run import TrainerFactory


def run_trial(
    model: Model, config: FinetuneConfig, output: Path, build_trainer: TrainerFactory
) -> float:
    """NDCG@10 of the validation targets; nothing is kept but checkpoints beside `output` meanwhile.

    Test targets, and what people took after them, are cut off before anything is trained: however
    many settings are tried, none can be chosen by them. Raises VitrineError without validation targets.
    """
    catalog, split = load_split(config.catalog, config.split)
    if not len(split.validation):
        raise VitrineError(
            f"the split of {catalog.name} has no validation targets, and settings are chosen by "
            "nothing else; set another split, or search.trials: 0"
        )
    catalog, split = without_test_targets(catalog, split)
    if model == "vitrine":
        tried = fit_each(config, catalog, split, output, build_trainer).values()
        scores = [fitted.best.best for fitted in tried]
    elif model == "semantic-ids":
        scores = [fit_semantic_ids(config, catalog, split, output, build_trainer).best.best]
    else:
        scores = [
            fit_baseline(model, config, catalog, split, output, build_trainer).validation_ndcg
        ]
    if None in scores:
        raise VitrineError(
            f"no validation target was ranked in training (trainer.strategy {config.trainer.strategy}), "
            "and settings are chosen by nothing else; use another strategy, or search.trials: 0"
        )
    return max(score for score in scores if score is not None)
