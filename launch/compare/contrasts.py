"""Which differences between arms are tested, and which arms come out the same with every seed."""

from collections.abc import Mapping

from finetune.config import ArmConfig

SAME_FOR_EVERY_SEED = ("popularity", "item-knn")
"""Models that a seed changes nothing of."""


def questions(arms: dict[str, ArmConfig], reference: str = "") -> list[tuple[str, str, str]]:
    """(what is asked, arm, against): the differences that are tested, as far as the arms are there."""
    asked = [(f"pretraining ({name})", name, "scratch") for name in ("frozen", "lora", "full")]
    for name in ("scratch", "lora"):
        asked.append((f"knowing the person ({name})", name, "popularity"))
        asked.append((f"content instead of ids ({name})", name, "id"))
    asked += [
        ("the items' own content", "lora", "shuffled"),
        ("ids beside content", "lora+id", "lora"),
        ("content beside ids", "lora+id", "id"),
        ("words beside both", "lora+id+words", "lora+id"),
        ("content and words beside ids", "lora+id+words", "id"),
        ("semantic ids instead of dense vectors", "semantic-ids", "lora"),
        ("semantic ids instead of ids", "semantic-ids", "id"),
    ]
    for name, arm in arms.items():
        if arm.modalities:
            asked.append((f"what is known beside {arm.modalities}", "lora", name))
            asked.append((f"{arm.modalities} instead of ids", name, "id"))
    for name, arm in arms.items():
        if arm.missing_percent and arm.imputation != "mask":
            asked.append((f"a mask rather than {name}", f"mask {arm.missing_percent:g}%", name))
        elif arm.missing_percent:
            asked.append((f"{arm.missing_percent:g} % missing", name, "whole"))
    asked += [(f"{name} rather than {reference}", name, reference) for name in arms if reference]
    found: dict[tuple[str, str], str] = {}
    for what, ours, other in asked:
        if ours in arms and other in arms and ours != other:
            found.setdefault((ours, other), what)
    return [(what, *pair) for pair, what in found.items()]


def without_seed_noise(arms: Mapping[str, ArmConfig]) -> set[str]:
    """Arms that come out the same with every seed: nothing of them is drawn, or nothing trained."""
    return {
        name
        for name, arm in arms.items()
        if arm.model in SAME_FOR_EVERY_SEED
        or (arm.model == "vitrine" and arm.transfer == "zero-shot" and not arm.missing_percent)
    }
