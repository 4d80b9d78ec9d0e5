"""How and where stages run: the `vitrine` command, settings, trainers and strategies."""
