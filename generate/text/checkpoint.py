"""Saves a text generator to a folder and loads it again, the pretrained base by reference."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from catalog.errors import VitrineError
from generate.text.language_model import BaseModel, add_adapter, load_adapted
from generate.text.model import TextGenerator
from generate.text.settings import TextGeneratorSettings
from generate.text.tasks import parse_task
from pretrain.artifact import without_bars
from pretrain.shards import float32_state

SETTINGS, PROJECTOR, VOCABULARY = (
    "generator.json",
    "projector.safetensors",
    "allowed_vocabulary.txt",
)
LANGUAGE_MODEL, ADAPTER, TOKENIZER = "language_model", "adapter", "tokenizer"
"""Subfolders of a saved generator."""


def save_text_generator(generator: TextGenerator, folder: str | Path) -> None:
    """Saves a generator to a folder for `load_text_generator`.

    A language model built from a config is saved in full; of a pretrained one only the LoRA adapter and the
    name and fingerprint of the base.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    base, language_model = generator.base, generator.language_model
    if base:
        # save_embedding_layers="auto" would query the hub for a grown vocabulary; here it never grows.
        assert generator.adapter == "default", "only a generator that has its base alone is saved"
        language_model.save_pretrained(
            str(folder / ADAPTER),
            state_dict=float32_state(language_model),
            save_embedding_layers=False,
        )
        # PEFT writes a model card of placeholders; the artifact's manifest describes the generator.
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)
    else:
        with without_bars():
            language_model.save_pretrained(
                str(folder / LANGUAGE_MODEL), state_dict=float32_state(language_model)
            )
    generator.tokenizer.save_pretrained(folder / TOKENIZER)
    if generator.vocabulary_filter is not None:
        words = sorted(generator.vocabulary_filter.words)
        (folder / VOCABULARY).write_text("\n".join(words), encoding="utf8")
    projector = {
        name: weight.cpu().contiguous()
        for name, weight in float32_state(generator).items()
        if not name.startswith("language_model.")
    }
    save_file(projector, folder / PROJECTOR)
    settings = asdict(generator.settings) | {"base": asdict(base) if base else None}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def load_text_generator(
    folder: str | Path, shared_base: TextGenerator | None = None
) -> TextGenerator:
    """Loads a generator in eval mode, on the CPU, in float32.

    `shared_base`: a generator with the same pretrained base, which is then shared in memory.
    """
    folder = Path(folder)
    stored: dict[str, Any] = json.loads((folder / SETTINGS).read_text())
    if set(stored) != {*TextGeneratorSettings.__dataclass_fields__, "base"}:
        raise VitrineError(
            f"{folder} was written by another version; train it again (vitrine train text)."
        )
    reference = stored.pop("base")
    base = BaseModel(**reference) if reference else None
    tasks = tuple(parse_task(task.pop("name"), task, folder) for task in stored.pop("tasks"))
    settings = TextGeneratorSettings(tasks=tasks, **stored)
    adapter = "default"
    if base and shared_base:
        language_model = shared_base.language_model
        adapter = add_adapter(language_model, base, shared_base.base, folder / ADAPTER)
    elif base:
        language_model = load_adapted(base, folder / ADAPTER)
    else:
        with without_bars():
            language_model = AutoModelForCausalLM.from_pretrained(
                folder / LANGUAGE_MODEL, dtype=torch.float32
            )
    vocabulary = None
    if (folder / VOCABULARY).exists():
        vocabulary = (folder / VOCABULARY).read_text(encoding="utf8").split("\n")
    generator = TextGenerator(
        language_model,
        AutoTokenizer.from_pretrained(folder / TOKENIZER),
        settings,
        base=base,
        adapter=adapter,
        allowed_vocabulary=vocabulary,
    )
    generator.load_state_dict(load_file(folder / PROJECTOR), strict=False)
    return generator.eval()
