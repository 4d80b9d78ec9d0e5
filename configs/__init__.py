"""One YAML file per runnable thing, packaged so that `vitrine` finds them from any folder."""
