"""The memory plan of a training (`vitrine launch plan`), without running it."""
