"""What a recommender must beat: systems that read no history in order, or nothing at all."""

from finetune.baselines.popularity import popularity_scores, rank_by_chance, rank_by_popularity

__all__ = ["popularity_scores", "rank_by_chance", "rank_by_popularity"]
