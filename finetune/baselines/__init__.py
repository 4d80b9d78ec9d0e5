"""Baselines: popularity, random, item-kNN, BPR-MF and VBPR."""

from finetune.baselines.popularity import popularity_scores, rank_by_chance, rank_by_popularity

__all__ = ["popularity_scores", "rank_by_chance", "rank_by_popularity"]
