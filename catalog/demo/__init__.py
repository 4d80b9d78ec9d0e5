"""The demo world: two small shops drawn and written by code from a seed, with known truth."""

from catalog.demo.build import build_demo_world, is_built
from catalog.demo.truth import DemoTruth

__all__ = ["DemoTruth", "build_demo_world", "is_built"]
