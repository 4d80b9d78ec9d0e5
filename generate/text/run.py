"""Trains a text generator: a recommender and a catalog in, a text-generator artifact out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.ranker import load_ranker
from generate.next_items import NextItemPairs, sample_conditions
from generate.text.checkpoint import save_text_generator
from generate.text.config import TextConfig
from generate.text.data import TextData
from generate.text.language_model import build_language_model, load_language_model
from generate.text.model import TextGenerator
from generate.text.module import TextModule
from generate.text.sequences import chat_template
from generate.text.settings import TextGeneratorSettings
from generate.text.task_texts import TaskTexts, tasks_with_texts
from generate.text.tokenizer import Tokenizer
from generate.text.vocabulary_filter import learn_allowed_vocabulary
from pretrain.artifact import count_parameters
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.curves import CurveRecorder
from pretrain.devices import (
    compute_of,
    on_cpu,
    resolve_precision,
    training_compute,
    training_device,
)
from pretrain.hub import num_positions
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights
from pretrain.work import work_folder

HISTORY_ITEMS, LIKELY_ITEMS = 6, 4
"""Items of a history, and likely next ones, in a prompt in words, where the settings say nothing."""
MAX_FACTS_TOKENS, MAX_HISTORY_TOKENS = 384, 128
"""Longest data of a prompt, in tokens, where the settings say nothing."""
MIN_FACTS_TOKENS = 32
"""Tokens of facts below which a prompt in words is of no use."""


def run_text_generator(config: TextConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Trains a text generator on a catalog's texts and its users' histories.

    Returns the artifact's folder: the generator (see `save_text_generator`), `curves.json`, and in the
    manifest the tasks that had texts to learn from.
    """
    catalog, split = load_split(config.catalog, config.split)
    recommender = open_artifact(Path(config.recommender), kind="recommender")
    # Loader processes cannot share a GPU with this one.
    histories_on = on_cpu() if config.workers else training_compute(config.trainer)
    ranker = load_ranker(recommender, catalog, compute=histories_on)
    pairs = NextItemPairs(catalog, split)
    texts, tasks_without_texts = tasks_with_texts(catalog, config.tasks, pairs)
    pl.seed_everything(config.trainer.seed, verbose=False)
    generator = build_text_generator(config, texts, pairs, ranker.width)
    states, vectors = sample_conditions(catalog, split, ranker, config.trainer.seed)
    for tokens, seen in ((generator.user_tokens, states), (generator.item_tokens, vectors)):
        if tokens is not None:
            tokens.fit_whitening(seen)
    curves = CurveRecorder(config.trainer.log_every)
    sources: dict[str, Any] = {
        "parents": {"recommender": recommender.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, "text-generator", config, "batch_size", **sources)
    title = f"Text generator for {catalog.name}"
    trainer = build_trainer(config.trainer, work, title, callbacks=[curves])
    data = TextData(texts, ranker, pairs, generator, config)
    module = TextModule(generator, config.optimizer, config.lora_steps)
    if config.train:
        trainer.fit(module, data)
    with gathered_weights(generator):
        if trainer.is_global_zero:
            metrics = {
                "parameters": count_parameters(module),
                "trained_parameters": count_parameters(module, trained_only=True),
                "steps": trainer.global_step,
                **compute_of(trainer).metrics,
                "texts": data.rows.num_texts,
                "tasks": list(texts.tasks),
                "tasks_without_texts": list(tasks_without_texts),
                **{name: points[-1][1] for name, points in curves.curves.items()},
            }
            with write_artifact(
                output,
                kind="text-generator",
                config=asdict(config),
                **sources,
                split=split.describe(),
                metrics=metrics,
                request=result_request("text-generator", asdict(config), **sources),
            ) as staging:
                save_text_generator(generator, staging.path)
                curves.save(staging.path / "curves.json")
            remove_checkpoints(work)
    trainer.strategy.barrier()
    return output


def build_text_generator(
    config: TextConfig, texts: TaskTexts, pairs: NextItemPairs, width: int
) -> TextGenerator:
    """Builds an untrained generator; a new tokenizer is trained on texts of the training part alone."""
    _check_pretrained(config)
    if config.lora_steps and not (config.model and config.lora_steps < config.trainer.max_steps):
        raise VitrineError(
            f"lora_steps {config.lora_steps} is for a pretrained model, and less than "
            f"trainer.max_steps ({config.trainer.max_steps}); set model, or lora_steps to 0."
        )
    base = None
    corpus = (text for task in texts.tasks for text in texts.texts(task, pairs, 100_000))
    if config.model:
        language_model, tokenizer, base = load_language_model(
            config.model,
            config.lora,
            corpus,
            model_dtype(config),
            config.gradient_checkpointing,
            config.quantize,
        )
    else:
        language_model, tokenizer = build_language_model(config.config, corpus, config.vocab_size)
    facts = config.prompt == "facts" or (config.prompt == "auto" and bool(config.model))
    most = MAX_FACTS_TOKENS if facts else MAX_HISTORY_TOKENS
    trained = config.train
    settings = TextGeneratorSettings(
        width=width,
        tasks=tuple(texts.tasks.values()),
        num_user_tokens=config.num_user_tokens * trained,
        num_item_tokens=config.num_item_tokens * trained,
        num_style_tokens=config.num_style_tokens * trained * has_reviews(texts.catalog),
        max_tokens=config.max_tokens,
        prompt="facts" if facts else "none",
        num_history_items=_first(config.num_history_items, HISTORY_ITEMS * facts),
        num_likely_items=_first(config.num_likely_items, LIKELY_ITEMS * facts),
        max_prompt_tokens=_first(config.max_prompt_tokens, most),
    )
    if facts and config.max_prompt_tokens is None:
        room = room_for_facts(settings, tokenizer, num_positions(language_model.config))
        settings = replace(settings, max_prompt_tokens=min(most, room))
    return TextGenerator(
        language_model,
        tokenizer,
        settings,
        base=base,
        allowed_vocabulary=learn_allowed_vocabulary(texts.catalog, pairs),
    )


def model_dtype(config: TextConfig) -> torch.dtype:
    """In what a pretrained model's own weights are held."""
    if config.model_dtype != "auto":
        return getattr(torch, config.model_dtype)
    precision = resolve_precision(config.trainer.precision, training_device(config.trainer))
    return torch.bfloat16 if precision.startswith("bf16") else torch.float32


def room_for_facts(
    settings: TextGeneratorSettings, tokenizer: Tokenizer, positions: int | None
) -> int:
    """Tokens of data for which a model with this many positions (None: no limit) has room.

    Raises VitrineError where a prompt in words does not fit.
    """
    if positions is None:
        return MAX_FACTS_TOKENS
    templates = [chat_template(tokenizer, task.request) for task in settings.tasks]
    around = max(len(one.before) + len(one.after) for one in templates)
    room = positions - around - settings.num_soft - settings.max_tokens
    if room < MIN_FACTS_TOKENS:
        raise VitrineError(
            f"the {positions} positions of the language model leave {max(room, 0)} tokens for facts, beside "
            f"{around} of instruction and {settings.max_tokens} of text (max_tokens); set prompt to none, or "
            "choose another model"
        )
    return room


def has_reviews(catalog: Catalog) -> bool:
    return catalog.interactions.reviews is not None


def _check_pretrained(config: TextConfig) -> None:
    """Raises VitrineError for settings of a pretrained model where there is none."""
    words = config.prompt == "facts" or (config.prompt == "auto" and config.model)
    if not config.train and not (config.model and words):
        raise VitrineError(
            "train false lets a pretrained model write by its prompt in words; set model, and prompt to "
            "facts."
        )
    if config.quantize != "none" and config.trainer.strategy.startswith("zero3"):
        raise VitrineError(
            f"quantize {config.quantize} and strategy {config.trainer.strategy} exclude each other: weights "
            "in 8 bits cannot be sharded; choose zero2, or leave quantize out."
        )
    for name in ("gradient_checkpointing", "model_dtype", "quantize"):
        if not config.model and getattr(config, name) not in (False, "auto", "none"):
            raise VitrineError(f"{name} is for a pretrained model; set model, or leave {name} out.")


def _first(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given
