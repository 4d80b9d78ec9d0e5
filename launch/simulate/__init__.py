"""Simulation of one rank of a multi-rank run (`vitrine launch simulate`)."""
