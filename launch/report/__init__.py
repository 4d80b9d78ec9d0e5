"""The page a run ends in: what was learned, what it is worth, and what it made for whom."""
