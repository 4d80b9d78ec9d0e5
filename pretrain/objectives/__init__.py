"""The objectives by name. A new one: one file here, one line in OBJECTIVES, a weight in the config."""

from pretrain.objectives.base import Objective, StepOutputs
from pretrain.objectives.behaviour import BehaviourContrast
from pretrain.objectives.co_engaged import CoEngagedContrast
from pretrain.objectives.edges import EdgeContrast
from pretrain.objectives.language import NextToken
from pretrain.objectives.modalities import ModalityContrast
from pretrain.objectives.pairs import PairSigmoid
from pretrain.objectives.reconstruction import FeatureReconstruction
from pretrain.objectives.words import WordReconstruction

OBJECTIVES: dict[str, type[Objective]] = {
    "modalities": ModalityContrast,
    "pairs": PairSigmoid,
    "behaviour": BehaviourContrast,
    "co_engaged": CoEngagedContrast,
    "edges": EdgeContrast,
    "words": WordReconstruction,
    "reconstruction": FeatureReconstruction,
    "language": NextToken,
}

__all__ = [
    "OBJECTIVES",
    "BehaviourContrast",
    "CoEngagedContrast",
    "EdgeContrast",
    "FeatureReconstruction",
    "ModalityContrast",
    "NextToken",
    "Objective",
    "PairSigmoid",
    "StepOutputs",
    "WordReconstruction",
]
