"""Scores personalization: conditioned on the user, on another user, and unconditionally."""
