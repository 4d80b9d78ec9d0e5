"""Hyperparameter search (Optuna, TPE) for the arms of a comparison."""
