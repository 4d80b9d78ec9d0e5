"""Texts of a small pretrained language model about real items: type named, claims supported, user identified.

python -m benchmarks.grounded run garments    # two hours on one core; resumes; films alike
python -m benchmarks.grounded record          # of both shops, and seconds a text on two cores
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.grounded_shops import (
    ARMS,
    BATCH,
    HEADLINE,
    PROMPT,
    SHOPS,
    STEPS,
    WORK,
    WRITE,
    ShopArms,
)
from benchmarks.record import write_record
from benchmarks.sources import TEXTS
from benchmarks.third_shops import choose_threshold, judge_planted, load_third_judge
from finetune.statistics import Interval, mean_interval, ratio_interval
from generate.conditioning import CONDITIONS
from generate.evaluation.identification import (
    draw_candidates,
    identification_figures,
    identification_hits,
)
from generate.evaluation.users import sample_users
from generate.text.config import WriteConfig
from generate.text.facts import cut
from generate.text.judge import EntailmentJudge, JudgedChecker
from generate.text.likelihood import (
    TrueTexts,
    nll_by_condition,
    score_identification,
    score_likelihood,
)
from generate.text.prompts import MAX_EXAMPLE_LETTERS
from generate.text.score import generate_texts

KINDS = ("plain", "strict")
USERS = 300
CALIBRATED = 250
"""Items on whose texts the judge's threshold is chosen."""
TIMED = 64
"""Texts that are timed, in one batch."""
NOTE = (
    f"SmolLM2-135M-Instruct; descriptions of the test targets of {USERS} users (garments: after a moment in "
    "time; films: each user's last), the item's facts and the titles of six items of the history in words "
    f"(at most {PROMPT} tokens). zero_shot: the model as it came; lora: trained for {STEPS} steps of {BATCH} "
    "texts; soft: the same, with soft tokens of user and item. type_named: the text has the last word of "
    "the garment's product type, or the film's first genre. unsupported: sentences that a MiniLM "
    "cross-encoder rejects, mean over texts; it has learned from claims about office supplies, toys, "
    "cosmetics and news, and took no part in writing. (A sentence of the catalog word by word is supported.) "
    "Its threshold tells the catalog's sentences about an "
    f"item from those about another one best, of {CALIBRATED} items that are not written about here. "
    "catalog_unsupported is what it rejects of the targets' own texts, which are true, foreign_unsupported "
    "of the same texts about another target; judge_precision and judge_recall are of planted false claims "
    "about the shop (those of text-claims). strict: --strict, by the fast check alone. "
    "perplexity: of the true description, with the item hidden, under the own user, a swapped one, none; the "
    "prompt then shows beginnings of descriptions: of six items of the history, and of the four that the "
    "recommender ranks first (not_shown: of texts that neither prompt begins to show). "
    "identification: the description is most likely under its own user among 20; "
    "recommender_identification: the item has the highest score under its own user. Intervals over users. "
)


def run(name: str) -> None:
    """Trains and measures the arms of one shop; each arm's figures and texts in a file of its own, part by
    part."""
    shop = ShopArms(name)
    judge = load_third_judge(WORK / "judge")
    for arm in ARMS:
        measured = Measured(shop, arm, judge)
        measured.measure()
        if arm == HEADLINE:
            measured.measure_headline()
        measured.judge()


class Measured:
    """The figures of one arm, each part of which is written to its file as soon as it is known."""

    def __init__(self, shop: ShopArms, arm: str, judge: EntailmentJudge) -> None:
        catalog, split = shop.data
        self.shop, self.arm, self.path = shop, arm, shop.folder / f"{arm}.json"
        self.writer = shop.writer(arm)
        self.judged = JudgedChecker(self.writer.checker, judge)
        self.users = sample_users(self.writer.ranker, catalog, split, USERS)
        self.true = self.writer.catalog_texts.texts_of(
            shop.task, self.users.users, self.users.positions
        )
        self.found: dict[str, Any] = {"users": len(self.users)}
        if self.path.exists():
            self.found = json.loads(self.path.read_text())

    def measure(self) -> None:
        self._part("plain", lambda: self._texts(WRITE))
        self._part("hidden", lambda: score_likelihood(self.writer, self.users, self._true_texts))

    def measure_headline(self) -> None:
        """Verified texts; how often the true text, the item hidden, is most likely under its own user."""
        self._part("strict", lambda: self._texts(replace(WRITE, verify_claims=True)))
        self._part("not_shown", self._likelihood_not_shown)
        self._part("recommender", self._identify_by_score)
        self._part(
            "identification",
            lambda: score_identification(self.writer, self.users, self._true_texts),
        )

    def judge(self) -> None:
        """What the judge says of the texts, of true ones, and of planted claims."""
        self._part("threshold", self._threshold)
        self.judged = replace(self.judged, threshold=self.found["threshold"])
        own = [text or "" for text in self.true]
        texts = {kind: self.found[kind]["texts"] for kind in KINDS if kind in self.found}
        texts |= {"catalog": own, "foreign": [*own[1:], own[0]]}
        for kind, listed in texts.items():
            self._part(f"{kind}_judged", partial(self._judged, listed))
        judge, threshold = self.judged.judge, self.judged.threshold
        self._part("judge", lambda: judge_planted(self.shop.name, judge, threshold))

    def _likelihood_not_shown(self) -> dict[str, Any]:
        """The gain of the own user over the swapped one, of texts that no prompt of theirs begins to show:
        as an item of the history, or among the recommender's first choices."""
        true, task = self._true_texts, self.writer.catalog_texts.tasks[self.shop.task]
        beginnings = [cut(text or "", MAX_EXAMPLE_LETTERS) for text in self.true]
        shown = [
            any(
                beginning
                in self.writer.prompts.data(self.users.prefixes[condition][row], None, task)
                for condition in ("own", "swapped")
            )
            for row, beginning in enumerate(beginnings)
        ]
        nll, counts = nll_by_condition(self.writer, self.users, true)
        kept = ~np.array(shown)[true.present()]
        gain = ratio_interval((nll["swapped"] - nll["own"])[kept], counts[kept])
        return {"texts": int(kept.sum()), "swapped_minus_own": asdict(gain)}

    def _identify_by_score(self) -> dict[str, Any]:
        """As identification, by the recommender's score of the item: what the text could say at most."""
        candidates = draw_candidates(self.users.users)
        vectors = torch.from_numpy(np.asarray(self.writer.ranker.item_vectors)[self.users.items])
        states = self.users.states["own"][candidates]  # (users, candidates, width)
        scores = (states * vectors[:, None]).sum(dim=-1)
        best = scores == scores.max(dim=1, keepdim=True).values
        return identification_figures(identification_hits(best))

    def _threshold(self) -> float:
        """The judge's threshold, chosen on texts of CALIBRATED items that are not written about here."""
        texts, task = self.writer.catalog_texts, self.writer.catalog_texts.tasks[self.shop.task]
        rows = np.random.default_rng(1).permutation(self.writer.catalog.num_items)
        others = rows[~np.isin(rows, self.users.items)].tolist()
        known = [(row, text) for row in others if (text := texts.item_text(task, row))]
        return choose_threshold(self.judged, dict(known[:CALIBRATED]))

    def _part(self, name: str, compute: Callable[[], Any]) -> None:
        if name in self.found:
            return
        found = self.found[name] = compute()
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        shown = summary(found) if isinstance(found, dict) else found
        print(f"{self.shop.name} {self.arm} {name}: {shown}", flush=True)

    @property
    def _true_texts(self) -> TrueTexts:
        return TrueTexts(self.shop.task, self.true, with_item=False)

    def _texts(self, config: WriteConfig) -> dict[str, Any]:
        began = time.process_time()
        texts = generate_texts(self.writer, self.users, self.shop.task, "own", config)
        seconds = (time.process_time() - began) / len(texts)
        return {
            "cpu_seconds_per_text": seconds,
            "fallback": [float(one.from_catalog) for one in texts],
            "attempts": [float(one.attempts) for one in texts],
            "texts": [one.text for one in texts],
        }

    def _judged(self, texts: Sequence[str]) -> dict[str, Any]:
        items = self.users.items.tolist()
        return {
            "type_named": self.shop.names_type(texts, items).tolist(),
            "unsupported": unsupported(self.judged, texts, items),
        }


def unsupported(
    judged: JudgedChecker, texts: Sequence[str], items: Sequence[int]
) -> list[float | None]:
    """Share of each text's sentences that the judge rejects."""
    shares = [
        judged.supported_share([text], [item]) for text, item in zip(texts, items, strict=True)
    ]
    return [None if share is None else 1 - share for share in shares]


def mean(values: Sequence[float | None]) -> Interval:
    return mean_interval(np.array([value for value in values if value is not None]))


def summary(found: dict[str, Any]) -> str:
    lists = {name: value for name, value in found.items() if isinstance(value, list)}
    means = [f"{name} {mean(value).value:.3f}" for name, value in lists.items() if name != "texts"]
    others = {name: value for name, value in found.items() if name not in lists}
    return f"{', '.join(means)} {others} {lists.get('texts', [])[:3]}"


def seconds_per_text(name: str) -> float:
    """Seconds of one of TIMED texts that two cores write in one batch."""
    torch.set_num_threads(2)
    shop = ShopArms(name)
    writer = shop.writer(HEADLINE)
    catalog, split = shop.data
    users = sample_users(writer.ranker, catalog, split, TIMED)
    generate_texts(writer, users.first(2), shop.task, "own", WRITE)
    began = time.perf_counter()
    generate_texts(writer, users, shop.task, "own", WRITE)
    return (time.perf_counter() - began) / TIMED


def record() -> None:
    figures: dict[str, Any] = {}
    for name in SHOPS:
        figures[f"{name}_seconds_per_text"] = seconds_per_text(name)
        for arm in ARMS:
            path = WORK / name / f"{arm}.json"
            if not path.exists() and arm != HEADLINE:
                continue
            found = json.loads(path.read_text())
            figures[f"{name}_users"] = found["users"]
            figures |= {f"{name}_{arm}_{key}": value for key, value in arm_figures(found).items()}
    write_record(
        "text-grounded",
        claim="A language model of 135 million weights with LoRA and soft tokens names what an item is, "
        "claims little that is not so, and tells users apart.",
        command="python -m benchmarks.grounded record",
        seeds=[0],
        figures=figures,
        sources=[
            *TEXTS,
            "benchmarks/grounded_shops.py",
            "benchmarks/models.py",
            "benchmarks/tasks/*.yaml",
            "benchmarks/third_shops.py",
            "generate/text/facts.py",
            "generate/text/judge.py",
            "generate/text/likelihood.py",
            "generate/text/shared_prompt.py",
        ],
        goal=[
            comparison
            for name in SHOPS
            for comparison in (
                f"{name}_users >= 300",
                f"{name}_{HEADLINE}_plain_type_named >= 0.95",
                f"{name}_{HEADLINE}_plain_unsupported <= 0.05",
                f"{name}_{HEADLINE}_strict_unsupported <= 0.01",
                f"{name}_{HEADLINE}_identification >= 0.1",
                f"{name}_{HEADLINE}_swapped_minus_own_low > 0",
            )
        ],
        note=NOTE,
    )


def arm_figures(found: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind in (kind for kind in KINDS if kind in found):
        for key in ("type_named", "unsupported"):
            figures[f"{kind}_{key}"] = mean(found[f"{kind}_judged"][key])
        figures[f"{kind}_cpu_seconds_per_text"] = found[kind]["cpu_seconds_per_text"]
        if kind == "strict":
            figures["strict_fallback"] = mean(found["strict"]["fallback"])
            figures["strict_attempts"] = mean(found["strict"]["attempts"]).value
    figures["catalog_type_named"] = mean(found["catalog_judged"]["type_named"])
    for kind in ("catalog", "foreign"):
        figures[f"{kind}_unsupported"] = mean(found[f"{kind}_judged"]["unsupported"])
    for name, value in found.get("judge", {}).items():
        figures[f"judge_{name}"] = Interval(**value)
    if "hidden" in found:
        figures["swapped_minus_own"] = Interval(**found["hidden"]["swapped_minus_own"])
        for condition in CONDITIONS:
            figures[f"{condition}_perplexity"] = found["hidden"][condition]["perplexity"]
    if "not_shown" in found:
        figures["not_shown_texts"] = found["not_shown"]["texts"]
        gain = Interval(**found["not_shown"]["swapped_minus_own"])
        figures["not_shown_swapped_minus_own"] = gain
    for key, name in (("", "identification"), ("recommender_", "recommender")):
        if accuracy := found.get(name, {}).get("accuracy"):
            figures[f"{key}identification"] = Interval(**accuracy)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("shop", choices=SHOPS)
    commands.add_parser("record")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "run":
        run(arguments.shop)
    else:
        record()


if __name__ == "__main__":
    main()
