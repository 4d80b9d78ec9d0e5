"""The demo world: two small shops drawn and written by code from a seed, with known truth."""

from catalog.demo.build import build_demo_world

__all__ = ["build_demo_world"]
