"""The arms of a comparison: baselines, controls, ablations and transfer modes, or ways to impute.

Knows nothing about training them.
"""

import json
from pathlib import Path

from catalog.errors import VitrineError, did_you_mean
from finetune.config import ArmConfig, Imputation
from launch.compare.config import CompareConfig

IMPUTATIONS: dict[Imputation, str] = {
    "mask": "masked in the fusion",
    "drop": "items without {} are left out of training",
    "zeros": "a zero embedding",
    "mean": "the mean {} embedding",
    "neighbours": "the mean {} embedding of co-purchased items",
    "multi-hop": "the same over several hops",
    "pagerank": "the same, weighted by personalised PageRank",
}


def chosen_arms(config: CompareConfig) -> dict[str, ArmConfig]:
    """The selected arms by name; VitrineError for names that do not exist."""
    if config.seeds < 1:
        raise VitrineError(f"seeds is {config.seeds}; give 1 or more")
    if config.missing:
        arms = missing_arms(_percents(config.missing), config.finetune.missing_modality.modality)
    else:
        arms = config.arms or default_arms(_modalities(config.finetune.encoder))
    selected = [name.strip() for name in config.include.split(",") if name.strip()] or list(arms)
    for name in selected:
        if name not in arms:
            raise VitrineError(
                f"there is no arm {name!r} among those to compare.{did_you_mean(name, arms)} "
                f"All of them: {', '.join(arms)}"
            )
    if config.reference and config.reference not in selected:
        raise VitrineError(
            f"reference is {config.reference!r}, which is not among the arms compared: {', '.join(selected)}"
        )
    return {name: arms[name] for name in selected}


def default_arms(modalities: list[str]) -> dict[str, ArmConfig]:
    """The arms that an encoder of these modalities allows; without an encoder, those that need none."""
    arms = {
        "popularity": ArmConfig(model="popularity", description="the items most users bought"),
        "item-knn": ArmConfig(
            model="item-knn", description="items that are bought by the same users"
        ),
        "bpr-mf": ArmConfig(
            model="bpr-mf",
            description="matrix factorisation: an embedding for each user and each item",
        ),
        "id": ArmConfig(
            transfer="scratch",
            features="id",
            description="our sequence encoder, a learned embedding for each item",
        ),
    }
    if not modalities:
        return arms
    bag_of_words = ArmConfig(
        features="content+id", bag_of_words=True, description="the same, and a bag of words"
    )
    arms["vbpr"] = ArmConfig(model="vbpr", description="bpr-mf, and the pretrained item embeddings")
    if len(modalities) > 1:
        for name in modalities:
            arms[f"{name} only"] = ArmConfig(
                modalities=name, description=f"lora, reading {name} alone"
            )
    return arms | {
        "semantic-ids": ArmConfig(
            model="semantic-ids",
            description="items as codes of the pretrained embeddings, decoded one by one",
        ),
        "shuffled": ArmConfig(
            features="shuffled", description="lora, reading other items' content"
        ),
        "zero-shot": ArmConfig(
            transfer="zero-shot", description="as pretrained, nothing fine-tuned"
        ),
        "scratch": ArmConfig(transfer="scratch", description="the same model, not pretrained"),
        "frozen": ArmConfig(transfer="frozen", description="frozen pretrained towers"),
        "lora": ArmConfig(
            transfer="lora", description="low-rank updates of the pretrained weights"
        ),
        "full": ArmConfig(transfer="full", description="all pretrained weights fine-tuned"),
        "lora+id": ArmConfig(
            features="content+id", description="lora, and an embedding for each item"
        ),
        **({"lora+id+words": bag_of_words} if "text" in modalities else {}),
    }


def missing_arms(percents: list[float], modality: str) -> dict[str, ArmConfig]:
    """Each imputation at each percentage of missing items, with frozen towers."""
    arms = {"whole": ArmConfig(transfer="frozen", description="as the catalog is")}
    for percent in percents:
        for imputation, description in IMPUTATIONS.items():
            arms[f"{imputation} {percent:g}%"] = ArmConfig(
                transfer="frozen",
                missing_percent=percent,
                imputation=imputation,
                description=description.format(modality),
            )
    return arms


def _percents(listed: str) -> list[float]:
    """The percentages above 0."""
    try:
        percents = [float(part) for part in listed.split(",")]
    except ValueError:
        percents = [-1.0]
    if not all(0 <= percent < 100 for percent in percents):
        raise VitrineError(
            f"missing is {listed!r}; give percents from 0 to below 100, with commas between: 0,30,60,90"
        )
    return [percent for percent in percents if percent]


def _modalities(encoder: str) -> list[str]:
    if not encoder:
        return []
    from catalog.artifacts import open_artifact

    shape = json.loads(
        (open_artifact(Path(encoder), kind="encoder").path / "config.json").read_text()
    )
    return [modality["name"] for modality in shape["modalities"]]
