"""The objectives by name. A new one: one file here, one line in OBJECTIVES, a weight in the config."""

from pretrain.objectives.base import Objective, StepOutputs
from pretrain.objectives.behaviour import BehaviourContrast
from pretrain.objectives.modalities import ModalityContrast
from pretrain.objectives.pairs import PairSigmoid
from pretrain.objectives.words import WordReconstruction

OBJECTIVES: dict[str, type[Objective]] = {
    "modalities": ModalityContrast,
    "pairs": PairSigmoid,
    "behaviour": BehaviourContrast,
    "words": WordReconstruction,
}

__all__ = [
    "OBJECTIVES",
    "BehaviourContrast",
    "ModalityContrast",
    "Objective",
    "PairSigmoid",
    "StepOutputs",
    "WordReconstruction",
]
