"""Generative recommendation by semantic ids: items as codes, and a decoder of the next item's codes."""
