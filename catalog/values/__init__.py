"""Reads the values of columns: times, numbers, ids, texts with HTML, and paths of pictures."""
