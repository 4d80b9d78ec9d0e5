"""Generative retrieval: items as sequences of codes, and a decoder that tells the next item's codes."""
