"""The objectives by name. A new objective: one file here, one line in OBJECTIVES, a weight in the config."""

from pretrain.objectives.bag_of_words import BagOfWords
from pretrain.objectives.base import Objective, StepOutputs
from pretrain.objectives.co_engagement import CoEngagementContrast
from pretrain.objectives.cross_modal import CrossModalContrast
from pretrain.objectives.edges import EdgeContrast
from pretrain.objectives.language_modeling import LanguageModeling
from pretrain.objectives.next_item import NextItemContrast
from pretrain.objectives.reconstruction import FeatureReconstruction
from pretrain.objectives.sigmoid import CrossModalSigmoid

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_modal": CrossModalContrast,
    "sigmoid": CrossModalSigmoid,
    "next_item": NextItemContrast,
    "co_engagement": CoEngagementContrast,
    "edges": EdgeContrast,
    "bag_of_words": BagOfWords,
    "reconstruction": FeatureReconstruction,
    "language_modeling": LanguageModeling,
}

__all__ = [
    "OBJECTIVES",
    "BagOfWords",
    "CoEngagementContrast",
    "CrossModalContrast",
    "CrossModalSigmoid",
    "EdgeContrast",
    "FeatureReconstruction",
    "LanguageModeling",
    "NextItemContrast",
    "Objective",
    "StepOutputs",
]
