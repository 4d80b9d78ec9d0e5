"""Writes the scores of a text generator, and a page of sample texts with a column for each user."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from catalog.artifacts import open_artifact, write_artifact
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from generate.conditioning import CONDITIONS
from generate.evaluation.ground_truth import load_ground_truth
from generate.evaluation.users import EvaluationUsers, sample_users
from generate.pseudonyms import pseudonymize, user_key
from generate.requests import GenerationRequest
from generate.text.clean import clean_text
from generate.text.config import TextScoreConfig, WriteConfig
from generate.text.judge import check_other_judge, check_other_weights, load_judge
from generate.text.score import TextScoreInputs, score_texts
from generate.text.similarity import load_text_encoder
from generate.text.writer import BatchWriter, load_writer
from pretrain.devices import Compute, on_cpu

SCORES_FILE, SAMPLES_FILE = "scores.json", "samples.md"
HISTORY_SHOWN = 5


def run_text_scores(
    folder: Path, config: TextScoreConfig, output: Path, compute: Compute | None = None
) -> Path:
    """Scores a text-generator artifact on the test targets of its catalog.

    Writes `scores.json` (see `score_texts`) and `samples.md`. `compute`: device and precision of the
    generator; None: float32 on the CPU.
    """
    for name, least in (("num_users", 2), ("num_generated", 1), ("num_sample_users", 1)):
        if getattr(config, name) < least:
            raise VitrineError(f"{name} is {getattr(config, name)}; give {least} or more.")
    check_other_judge(config.write.judge, config.judge)
    artifact = open_artifact(folder, kind="text-generator")
    settings = artifact.manifest["config"]
    catalog, split = load_split(
        CatalogConfig(**settings["catalog"]), SplitConfig(**settings["split"])
    )
    some = [catalog.item_text(item) or "" for item in range(min(catalog.num_items, 200))]
    name = config.text_encoder
    encoders = {name: load_text_encoder(name, some)} if name else {}
    truth = load_ground_truth(config.ground_truth, catalog) if config.ground_truth else None
    judge = load_judge(config.judge, config.judge_label, compute)
    inputs = TextScoreInputs(truth.text_readings() if truth else {}, encoders, judge=judge)
    writer = load_writer(artifact, config=config.write, compute=compute)
    writer = replace(writer, catalog=catalog, split=split)
    check_other_weights(writer.judge(config.write), judge)
    scores = score_texts(writer, split, config, inputs)
    num_users = max(2, config.num_sample_users)
    users = sample_users(writer.ranker, catalog, split, num_users, config.seed)
    with write_artifact(
        output,
        kind="text-scores",
        config=asdict(config),
        parents={"generator": artifact.path},
        catalog=catalog.fingerprint,
        user_key=user_key().fingerprint,
        metrics=(compute or on_cpu()).metrics,
    ) as staging:
        (staging.path / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n")
        page = samples_page(writer, users.first(config.num_sample_users), config.write)
        (staging.path / SAMPLES_FILE).write_text(page, encoding="utf8")
    return output


def samples_page(writer: BatchWriter, users: EvaluationUsers, config: WriteConfig) -> str:
    """Markdown: each task's texts about the next item of each user, for each of the users and without a
    user, from one seed."""
    catalog = writer.catalog
    titles = catalog.texts("title")
    config = replace(config, verify_claims=False)

    def title(item: int) -> str:
        return _cell(titles(item) or str(catalog.items[item]["item_id"]))

    names = [pseudonymize(str(catalog.user_ids[user])) for user in users.users]
    lines = [f"# Texts about the same items, for users {' · '.join(names)} of {catalog.name}", ""]
    for name, history in zip(names, users.histories, strict=True):
        last = "; ".join(title(int(item)) for item in history[-HISTORY_SHOWN:])
        lines.append(f"- **{name}** bought last: {last or 'nothing'}")
    unconditional = torch.zeros_like(users.states["none"][0])
    for task in writer.generator.tasks:
        lines += ["", f"## {task}", "", f"| item | {' | '.join(names)} | unconditional |"]
        lines.append(f"|{' --- |' * (len(names) + 2)}")
        for item in map(int, users.items):
            count = len(users)
            requests = users.requests("own", [item] * count, [config.seed] * count)
            requests.append(GenerationRequest(unconditional, item, config.seed))
            texts = [found.text for found in writer.write_batch(requests, task, config)]
            lines.append(f"| {title(item)} | {' | '.join(map(_cell, texts))} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table: no link, image, tag or cell border in it takes effect."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!" else sign for sign in clean_text(text))
    return escaped or " "


def describe_scores(scores: Mapping[str, Any]) -> str:
    """Returns the main figures as lines of text."""
    return "\n".join(
        [
            f"{scores['num_users']:,} users",
            *_likelihood_lines(scores),
            *_generated_lines(scores["generated"]),
            *_reading_lines(scores["readings"]),
        ]
    )


def _likelihood_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    for key, figures in scores["likelihood"].items():
        if "own" not in figures:
            continue
        values = [f"{name} {figures[name]['perplexity']:.2f}" for name in CONDITIONS]
        difference = _interval(figures["swapped_minus_own"])
        yield f"{key}: perplexity {', '.join(values)}; swapped minus own {difference} nats a token"
        found = scores["identification"][key]
        if "accuracy" in found:
            yield (
                f"  user identified among {found['num_candidates']}: "
                f"{_interval(found['accuracy'])} (chance {found['chance']:.3f})"
            )


def _generated_lines(generated: Mapping[str, Any]) -> Iterator[str]:
    for task, figures in generated.items():
        yield f"{task}, {figures['texts']:,} texts generated"
        yield (
            f"  unique {figures['unique']:.3f}, distinct-2 {figures['distinct_2']:.3f}, near copies "
            f"{figures['near_copies']:.3f}, feature coverage {figures['feature_coverage']:.3f}, "
            f"features shared by two texts {figures['shared_features']:.2f}"
        )
        for name, label in (
            ("rouge_l", "ROUGE-L"),
            ("rouge_1", "ROUGE-1"),
            ("feature_match", "feature match"),
        ):
            if name in figures:
                yield f"  {label}: {_compared(figures[name])}"
        if "rouge_l" in figures["item_hidden"]:
            yield f"  ROUGE-L, item hidden: {_compared(figures['item_hidden']['rouge_l'])}"
        if "bleu" in figures:
            yield f"  BLEU: own {figures['bleu']['own']:.4f}, none {figures['bleu']['none']:.4f}"
        for encoder, similarity in figures["similarity"].items():
            yield f"  similarity to the item ({encoder}): {_compared(similarity['item'])}"
            yield f"  similarity to the history ({encoder}): {_compared(similarity['history'])}"
        yield (
            f"  unsupported claims: {figures['unsupported_claims']:.4f} of {figures['claims']:,}"
        )
        if (share := figures.get("entailed_sentences")) is not None:
            yield f"  sentences entailed, by the judge: {share:.3f}"
        if verified := figures.get("verified"):
            yield (
                f"  verified claims: {verified['mean_attempts']:.2f} attempts a text; fallback to the "
                f"catalog's own text {verified['fallback_share']:.3f}"
            )
            if (share := verified.get("entailed_sentences")) is not None:
                yield f"  sentences entailed once verified, by the judge: {share:.3f}"


def _reading_lines(readings: Mapping[str, Any]) -> Iterator[str]:
    for name, figures in readings.items():
        if "own" in figures:
            yield (
                f"{name}: own {figures['own']['value']:.3f}, swapped "
                f"{figures['swapped']['value']:.3f}, ratio {_interval(figures['own_over_swapped'])}"
            )


def _compared(figures: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {figures[name]['value']:.4f}" for name in CONDITIONS)
    return f"{values}; own minus none {_interval(figures['own_minus_none'])}"


def _interval(figures: Mapping[str, float]) -> str:
    return f"{figures['value']:.4f} [{figures['low']:.4f}, {figures['high']:.4f}]"
