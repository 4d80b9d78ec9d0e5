"""Which differences between arms are tested, and which arms come out the same with every seed."""

from collections.abc import Mapping

from finetune.config import ArmConfig

SAME_FOR_EVERY_SEED = ("popularity", "item-knn")
"""Models whose result does not depend on the seed."""


def planned_contrasts(
    arms: dict[str, ArmConfig], reference: str = ""
) -> list[tuple[str, str, str]]:
    """(label, arm, against): the differences that are tested, as far as both arms are there."""
    contrasts = [(f"pretraining ({name})", name, "scratch") for name in ("frozen", "lora", "full")]
    for name in ("scratch", "lora"):
        contrasts.append((f"personalisation ({name})", name, "popularity"))
        contrasts.append((f"content instead of ids ({name})", name, "id"))
    contrasts += [
        ("the items' own content", "lora", "shuffled"),
        ("ids beside content", "lora+id", "lora"),
        ("content beside ids", "lora+id", "id"),
        ("bag of words beside both", "lora+id+words", "lora+id"),
        ("content and bag of words beside ids", "lora+id+words", "id"),
        ("semantic ids instead of dense vectors", "semantic-ids", "lora"),
        ("semantic ids instead of ids", "semantic-ids", "id"),
    ]
    for name, arm in arms.items():
        if arm.modalities:
            contrasts.append((f"modalities beside {arm.modalities}", "lora", name))
            contrasts.append((f"{arm.modalities} instead of ids", name, "id"))
    for name, arm in arms.items():
        if arm.missing_percent and arm.imputation != "mask":
            contrasts.append((f"a mask rather than {name}", f"mask {arm.missing_percent:g}%", name))
        elif arm.missing_percent:
            contrasts.append((f"{arm.missing_percent:g} % missing", name, "whole"))
    contrasts += [
        (f"{name} rather than {reference}", name, reference) for name in arms if reference
    ]
    by_pair: dict[tuple[str, str], str] = {}
    for label, ours, other in contrasts:
        if ours in arms and other in arms and ours != other:
            by_pair.setdefault((ours, other), label)
    return [(label, *pair) for pair, label in by_pair.items()]


def seed_independent_arms(arms: Mapping[str, ArmConfig]) -> set[str]:
    """Arms whose ranks are the same with every seed: nothing in them is random, or nothing is trained."""
    return {
        name
        for name, arm in arms.items()
        if arm.model in SAME_FOR_EVERY_SEED
        or (arm.model == "vitrine" and arm.transfer == "zero-shot" and not arm.missing_percent)
    }
