"""Words on one page: a recommender, a catalog and settings in, a text generator artifact out."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from catalog.artifacts import open_artifact, write_artifact
from catalog.errors import VitrineError
from catalog.splits import load_split
from finetune.ranker import load_ranker
from generate.next_items import NextItemPairs, sample_conditions
from generate.text.config import TextConfig
from generate.text.data import TextData
from generate.text.language_model import build_language_model, load_language_model
from generate.text.model import TextGenerator
from generate.text.module import TextModule
from generate.text.tasks import Words, tasks_with_words
from generate.text.vouched import learn_vouched
from pretrain.artifact import count_parameters
from pretrain.curves import CurveRecorder
from pretrain.run import TrainerFactory
from pretrain.shards import gathered_weights
from pretrain.work import clear_work, learned_request, work_folder


def run_text_generator(config: TextConfig, output: Path, build_trainer: TrainerFactory) -> Path:
    """Learns to write about a catalog's items for its people.

    Returns the artifact's folder: the generator (see `TextGenerator.save_pretrained`),
    `curves.json`, and in the manifest which tasks had words to learn from.
    """
    catalog, split = load_split(config.catalog, config.split)
    recommender = open_artifact(Path(config.recommender), kind="recommender")
    ranker = load_ranker(recommender.path, catalog)
    pairs = NextItemPairs(catalog, split)
    words, wordless = tasks_with_words(catalog, config.tasks, pairs)
    pl.seed_everything(config.trainer.seed, verbose=False)
    generator = new_generator(config, words, pairs, ranker.width)
    states, vectors = sample_conditions(catalog, split, ranker, config.trainer.seed)
    generator.user_tokens.fit_whitening(states)
    generator.item_tokens.fit_whitening(vectors)
    curves = CurveRecorder(config.trainer.log_every)
    made_from: dict[str, Any] = {
        "parents": {"recommender": recommender.path},
        "catalog": catalog.fingerprint,
    }
    work = work_folder(output, "text-generator", config, "batch_size", **made_from)
    trainer = build_trainer(config.trainer, work, f"Words for {catalog.name}", callbacks=[curves])
    data = TextData(words, ranker, pairs, generator, config)
    module = TextModule(generator, config.optimizer, config.lora_steps)
    trainer.fit(module, data)
    with gathered_weights(generator):
        if trainer.is_global_zero:
            metrics = {
                "parameters": count_parameters(module),
                "trained_parameters": count_parameters(module, trained_only=True),
                "steps": trainer.global_step,
                "texts": data.rows.num_texts,
                "tasks": list(words.tasks),
                "tasks_without_words": list(wordless),
                **{name: points[-1][1] for name, points in curves.curves.items()},
            }
            with write_artifact(
                output,
                kind="text-generator",
                config=asdict(config),
                **made_from,
                split=split.describe(),
                metrics=metrics,
                request=learned_request("text-generator", asdict(config), **made_from),
            ) as staging:
                generator.save_pretrained(staging.path)
                curves.save(staging.path / "curves.json")
            clear_work(work)
    trainer.strategy.barrier()
    return output


def new_generator(
    config: TextConfig,
    words: Words,
    pairs: NextItemPairs,
    width: int,
) -> TextGenerator:
    """An untrained generator; a new tokenizer learns from the words of training alone."""
    if config.lora_steps and not (config.model and config.lora_steps < config.trainer.max_steps):
        raise VitrineError(
            f"lora_steps {config.lora_steps} is for a pretrained model, and less than "
            f"trainer.max_steps ({config.trainer.max_steps}); set model, or lora_steps to 0."
        )
    base = None
    texts = (text for task in words.tasks for text in words.texts(task, pairs, 100_000))
    if config.model:
        language_model, tokenizer, base = load_language_model(config.model, config.lora, texts)
    else:
        language_model, tokenizer = build_language_model(config.config, texts, config.vocab_size)
    return TextGenerator(
        language_model,
        tokenizer,
        width=width,
        tasks=tuple(words.tasks.values()),
        num_user_tokens=config.num_user_tokens,
        num_item_tokens=config.num_item_tokens,
        num_voice_tokens=config.num_voice_tokens if words.catalog.interactions.reviews else 0,
        max_tokens=config.max_tokens,
        history_items=config.history_items,
        history_tokens=config.history_tokens,
        base=base,
        vouched=learn_vouched(words.catalog, pairs),
    )
