"""The scores of a text generator, and a page on which people stand side by side."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.splits import load_split
from generate.conditioning import Ranker
from generate.pseudonyms import opaque_id, user_key
from generate.ranker import load_catalog_and_ranker
from generate.text.clean import clean_text
from generate.text.config import ScoreConfig, WriteConfig
from generate.text.judge import model_judge
from generate.text.model import TextGenerator
from generate.text.prompts import Past, Prompts
from generate.text.score import People, choose_people, score_texts
from generate.truth import demo_truth

SCORES_FILE, SAMPLES_FILE = "scores.json", "samples.md"
HISTORY_SHOWN = 5


def run_text_scores(folder: Path, config: ScoreConfig, output: Path) -> Path:
    """Scores a text-generator artifact on its own shop's test targets; writes `scores.json` (see
    `score_texts`) and `samples.md`."""
    for name, least in (("people", 2), ("written", 1), ("samples", 1)):
        if getattr(config, name) < least:
            raise VitrineError(f"{name} is {getattr(config, name)}; give {least} or more.")
    artifact = open_artifact(folder, kind="text-generator")
    settings = artifact.manifest["config"]
    catalog, split = load_split(
        CatalogConfig(**settings["catalog"]), SplitConfig(**settings["split"])
    )
    some = [catalog.item_text(item) or "" for item in range(min(catalog.num_items, 200))]
    judges = {config.judge: model_judge(config.judge, some)} if config.judge else {}
    _, ranker = load_catalog_and_ranker(artifact)
    generator = TextGenerator.from_pretrained(artifact.path)
    truth = demo_truth(config.truth, catalog) if config.truth else None
    scores = score_texts(
        generator,
        ranker,
        catalog,
        split,
        readings=truth.text_readings() if truth else {},
        judges=judges,
        people=config.people,
        written=config.written,
        write=config.write,
        seed=config.seed,
    )
    people = choose_people(ranker, catalog, split, max(2, config.samples), config.seed)
    with write_artifact(
        output,
        kind="text-scores",
        config=asdict(config),
        parents={"generator": artifact.path},
        catalog=catalog.fingerprint,
        user_key=user_key().fingerprint,
    ) as staging:
        (staging.path / SCORES_FILE).write_text(json.dumps(scores, indent=1) + "\n")
        page = samples_page(generator, ranker, catalog, people.first(config.samples), config.write)
        (staging.path / SAMPLES_FILE).write_text(page, encoding="utf8")
    return output


def samples_page(
    generator: TextGenerator, ranker: Ranker, catalog: Catalog, people: People, config: WriteConfig
) -> str:
    """Markdown: each task's words about the next item of each person, told each of these people and
    nobody, from one seed."""
    prompts = Prompts(catalog, ranker, generator.history_items)
    titles = catalog.texts("title")

    def title(item: int) -> str:
        return _cell(titles(item) or str(catalog.items[item]["item_id"]))

    names = [opaque_id(str(catalog.user_ids[user])) for user in people.users]
    lines = [f"# Words about the same items, for {' · '.join(names)} of {catalog.name}", ""]
    for name, history in zip(names, people.histories, strict=True):
        taken = "; ".join(title(int(item)) for item in history[-HISTORY_SHOWN:])
        lines.append(f"- **{name}** took last: {taken or 'nothing'}")
    everybody = [*people.pasts["own"], Past()]
    states = torch.cat([people.states["own"], people.states["none"][:1]])
    for task in generator.tasks:
        lines += ["", f"## {task}", "", f"| item | {' | '.join(names)} | nobody in particular |"]
        lines.append(f"|{' --- |' * (len(names) + 2)}")
        for item in people.items:
            conditions = prompts.make(states, everybody, [int(item)] * len(everybody))
            texts = generator.write(
                conditions, task, seeds=[config.seed] * len(everybody), config=config
            )
            lines.append(f"| {title(int(item))} | {' | '.join(map(_cell, texts))} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """As data in a table of Markdown: nothing in it is a link, a picture, a tag or another cell."""
    escaped = "".join(f"\\{sign}" if sign in "\\`*_[]<>|#!" else sign for sign in clean_text(text))
    return escaped or " "


def describe_scores(scores: Mapping[str, Any]) -> str:
    """The main figures as lines to read."""
    return "\n".join(_lines(scores))


def _lines(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"{scores['people']:,} people"
    for key, found in scores["likelihood"].items():
        if "own" not in found:
            continue
        told = [f"{name} {found[name]['perplexity']:.2f}" for name in ("own", "swapped", "none")]
        gap = _interval(found["swapped_minus_own"])
        yield f"{key}: perplexity {', '.join(told)}; swapped minus own {gap} nats a token"
        whose = scores["identified"][key]
        if "share" in whose:
            share = _interval(whose["share"])
            yield f"  told from among {whose['among']} people: {share} (chance {whose['chance']:.3f})"
    for task, found in scores["written"].items():
        yield f"{task}, {found['texts']:,} texts written"
        yield (
            f"  unique {found['unique']:.3f}, distinct-2 {found['distinct_2']:.3f}, near copies "
            f"{found['near_copies']:.3f}, features covered {found['feature_coverage']:.3f}, shared by "
            f"two texts {found['shared_features']:.2f}"
        )
        for name, label in (
            ("rouge_l", "ROUGE-L"),
            ("rouge_1", "ROUGE-1"),
            ("feature_match", "features matched"),
        ):
            if name in found:
                yield f"  {label}: {_told(found[name])}"
        if "rouge_l" in found["item_hidden"]:
            yield f"  ROUGE-L, item hidden: {_told(found['item_hidden']['rouge_l'])}"
        if "bleu" in found:
            yield f"  BLEU: own {found['bleu']['own']:.4f}, none {found['bleu']['none']:.4f}"
        for judge, near in found["near"].items():
            yield f"  near the item ({judge}): {_told(near['item'])}"
            yield f"  near the history ({judge}): {_told(near['history'])}"
        yield f"  unsupported: {found['unsupported_claims']:.4f} of {found['claims']:,} claims"
        if strict := found.get("strict"):
            yield (
                f"  strict: {strict['tried']:.2f} tries a text; {strict['catalogs_own']:.3f} of the "
                "texts are the catalog's own"
            )
    for name, found in scores["readings"].items():
        if "own" in found:
            yield (
                f"{name}: own {found['own']['value']:.3f}, swapped {found['swapped']['value']:.3f}, "
                f"ratio {_interval(found['own_over_swapped'])}"
            )


def _told(found: Mapping[str, Any]) -> str:
    values = ", ".join(f"{told} {found[told]['value']:.4f}" for told in ("own", "swapped", "none"))
    return f"{values}; own minus none {_interval(found['own_minus_none'])}"


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
