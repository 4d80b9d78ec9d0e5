"""Many recommenders under one protocol and several seeds: which is better, and by how much."""
