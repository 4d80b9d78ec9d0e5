"""Trains a text generator: a recommender and a catalog in, a text-generator artifact out."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from catalog.artifacts import open_artifact, write_artifact
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.ranker import load_ranker
from generate.next_items import NextItemPairs, sample_conditions
from generate.text.checkpoint import save_text_generator
from generate.text.config import TextConfig
from generate.text.data import TextData
from generate.text.language_model import build_language_model, load_language_model
from generate.text.model import TextGenerator, TextGeneratorSettings
from generate.text.module import TextModule
from generate.text.task_texts import TaskTexts, tasks_with_texts
from generate.text.vocabulary_filter import learn_allowed_vocabulary
from pretrain.artifact import count_parameters
from pretrain.checkpoint_files import remove_checkpoints
from pretrain.curves import CurveRecorder
from pretrain.devices import compute_of, on_cpu, training_compute
from pretrain.request import result_request
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights
from pretrain.work import work_folder


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
    generator.user_tokens.fit_whitening(states)
    generator.item_tokens.fit_whitening(vectors)
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
    if config.lora_steps and not (config.model and config.lora_steps < config.trainer.max_steps):
        raise VitrineError(
            f"lora_steps {config.lora_steps} is for a pretrained model, and less than "
            f"trainer.max_steps ({config.trainer.max_steps}); set model, or lora_steps to 0."
        )
    base = None
    corpus = (text for task in texts.tasks for text in texts.texts(task, pairs, 100_000))
    if config.model:
        language_model, tokenizer, base = load_language_model(config.model, config.lora, corpus)
    else:
        language_model, tokenizer = build_language_model(config.config, corpus, config.vocab_size)
    settings = TextGeneratorSettings(
        width=width,
        tasks=tuple(texts.tasks.values()),
        num_user_tokens=config.num_user_tokens,
        num_item_tokens=config.num_item_tokens,
        num_style_tokens=config.num_style_tokens if texts.catalog.interactions.reviews else 0,
        max_tokens=config.max_tokens,
        num_history_items=config.num_history_items,
        max_history_tokens=config.max_history_tokens,
    )
    return TextGenerator(
        language_model,
        tokenizer,
        settings,
        base=base,
        allowed_vocabulary=learn_allowed_vocabulary(texts.catalog, pairs),
    )
