"""Towers: Hugging Face models that encode one modality, and what goes before and after them.

`build` makes the model, `image_processor` and `sentence_transformers` read what a checkpoint says of its
inputs, `pooling` reduces the model's output to one vector, `projection` brings it to the shared width.
"""
