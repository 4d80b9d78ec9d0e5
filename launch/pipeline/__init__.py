"""All stages of a config in one command, each resumed from what its folder holds."""
