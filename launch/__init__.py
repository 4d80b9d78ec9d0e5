"""How and where anything runs: the `vitrine` command, settings, trainers and strategies."""
