"""The data doctor: examines a catalog before training, and reports its faults with their remedies."""
