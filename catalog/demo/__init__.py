"""The demo world: two small shops drawn and written by code from a seed, with known ground truth."""

from catalog.demo.build import build_demo_world, is_built
from catalog.demo.ground_truth import DemoGroundTruth

__all__ = ["DemoGroundTruth", "build_demo_world", "is_built"]
