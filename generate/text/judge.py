"""An entailment model as a judge of texts: does what the catalog says of an item entail each sentence?

Any sequence classifier of Hugging Face whose labels say which of them means entailment: an NLI model (Bowman
et al., 2015), or a fact checker of two labels such as MiniCheck (Tang et al., 2024). The premise is what is
known of the item, the hypothesis a sentence. A long premise is cut into windows, of which the best counts.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from catalog.errors import VitrineError
from generate.text.config import JudgeScope, WriteConfig
from generate.text.evidence import item_facts
from generate.text.faithfulness import Claim, ClaimChecker
from pretrain.devices import Compute, on_cpu
from pretrain.hub import check_tokenizer, num_positions, read_model, read_tokenizer

MAX_WINDOW = 512
"""Tokens of premise and hypothesis together, at most."""
OVERLAP = 0.15
"""Tokens of the premise that the next window repeats, as a share of a window."""
MAX_REVIEWS = 10
"""Training reviews that are part of the premise, at most."""
SENTENCE_END = re.compile(r"(?<=[.!?…。！？])\s+|(?<=[。！？])|[;\n•]+\s*")
_SUPPORTS = re.compile(r"entail(s|ment|ed)?|support(s|ed)?|faithful|consistent|factual|grounded")
_DENIES = re.compile(r"(not|non|un|in|no)[\W_]*$")


class EntailmentJudge:
    """Gives the probability that a premise entails a hypothesis."""

    def __init__(
        self,
        name: str,
        label: str = "",
        batch_size: int = 32,
        compute: Compute | None = None,
        what: str = "judge",
    ) -> None:
        """`name`: a sequence classifier by name or folder; `label`: its label (or its number) that means
        entailment, where its labels do not say so; `what`: the setting, for messages.

        Raises VitrineError where the model cannot be loaded, reads no text, or has no such label.
        """
        self.name, self.batch_size = name, batch_size
        self.compute = compute or on_cpu()
        model = read_model(name, AutoModelForSequenceClassification, what, pooler=True).eval()
        self.tokenizer: Any = read_tokenizer(name)
        check_tokenizer(
            self.tokenizer, name, ["It is made of red wool, 12 cm."], model.config.vocab_size
        )
        if not self.tokenizer.is_fast:
            raise VitrineError(
                f"the tokenizer of {what} {name!r} cannot cut long texts into windows; name a model that "
                "has a tokenizer.json."
            )
        labels = {int(index): str(text) for index, text in model.config.id2label.items()}
        self.label = entailment_label(labels, name, label, what)
        self.digest = weights_digest(model)
        self.model = self.compute.place(model)
        limits = (MAX_WINDOW, num_positions(model.config), self.tokenizer.model_max_length)
        self.window = min(limit for limit in limits if limit)

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> NDArray[np.float32]:
        """Probability in [0, 1] that each premise entails its hypothesis: float32 (len(premises),)."""
        best = np.zeros(len(premises), dtype=np.float32)
        if not len(premises):
            return best
        encoded, owners = self.windows(premises, hypotheses)
        # Windows of similar length share a batch.
        order = np.argsort([len(row["input_ids"]) for row in encoded], kind="stable")
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            scores = self._probabilities([encoded[index] for index in chosen])
            np.maximum.at(best, owners[chosen], scores)
        return best

    def windows(
        self, premises: Sequence[str], hypotheses: Sequence[str]
    ) -> tuple[list[dict[str, list[int]]], NDArray[np.int64]]:
        """Token ids of each pair's windows, and the index of the pair that each belongs to."""
        encoded = self.tokenizer(
            [premise or "." for premise in premises],
            [self._cut(hypothesis) for hypothesis in hypotheses],
            truncation="only_first",
            max_length=self.window,
            stride=int(self.window * OVERLAP),
            return_overflowing_tokens=True,
        )
        owners = encoded.pop("overflow_to_sample_mapping")
        names = list(encoded)
        rows = [
            dict(zip(names, values, strict=True)) for values in zip(*encoded.values(), strict=True)
        ]
        return rows, np.array(owners, dtype=np.int64)

    def _cut(self, hypothesis: str) -> str:
        """The hypothesis, without what would leave less than half of a window to the premise."""
        offsets = self.tokenizer(
            hypothesis, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        most = self.window // 2 - self.tokenizer.num_special_tokens_to_add(pair=True)
        return hypothesis if len(offsets) <= most else hypothesis[: offsets[most - 1][1]]

    @torch.inference_mode()
    def _probabilities(self, rows: Sequence[dict[str, list[int]]]) -> NDArray[np.float32]:
        batch = self.tokenizer.pad(list(rows), return_tensors="pt").to(self.compute.device)
        with self.compute.autocast():
            logits = self.model(**batch).logits.float().cpu()
        if logits.shape[1] == 1:
            return logits[:, 0].sigmoid().numpy()
        return logits.softmax(-1)[:, self.label].numpy()


def entailment_label(labels: dict[int, str], name: str, label: str, what: str = "judge") -> int:
    """Index of the label that means entailment; `label`: its name or number, "" to find it.

    Raises VitrineError where there is none, or more than one.
    """
    listed = ", ".join(labels.values())
    if label:
        named = [index for index, text in labels.items() if label in (text, str(index))]
        if not named:
            raise VitrineError(
                f"{what}_label is {label!r}, but {name!r} has the labels {listed}; name one of them, or its "
                "number from 0."
            )
        return named[0]
    found = [index for index, text in labels.items() if _means_entailment(text.lower())]
    if len(found) != 1:
        raise VitrineError(
            f"{what} {name!r} has the labels {listed}, which do not say which of them means entailment; name "
            f"it with {what}_label, or another model."
        )
    return found[0]


def _means_entailment(label: str) -> bool:
    match = _SUPPORTS.search(label)
    return match is not None and not _DENIES.search(label[: match.start()])


def weights_digest(model: torch.nn.Module) -> str:
    """Hash of a model's weights, whatever its folder is called: sha256 over names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sentences(text: str) -> list[str]:
    """Sentences of a text, the last one with or without its stop; semicolons and bullets separate too."""
    return [part.strip() for part in SENTENCE_END.split(text) if part and part.strip()]


def _words_of(sentence: str) -> str:
    """A sentence without what does not change what it says: case, blanks, and stops around it."""
    return " ".join(sentence.casefold().split()).strip(" .!?…")


@dataclass(frozen=True)
class JudgedChecker:
    """A `ClaimChecker` and an entailment model together: a text is faithful if neither rejects any of it."""

    fast: ClaimChecker
    judge: EntailmentJudge
    threshold: float = 0.5
    """A sentence is a supported claim from this probability of entailment on."""
    scope: JudgeScope = "all"
    """What is judged (see `generate.text.config.JudgeScope`)."""

    def check(self, text: str, item: int) -> list[Claim]:
        """The fast check's claims, and one of each sentence judged (`about` is "sentence")."""
        claims = self.fast.check(text, item)
        if self.scope == "words":
            claims = [one for one in claims if one.about != "word" or one.verdict == "supported"]
        parts = [part for part in sentences(text) if self._is_judged(part, item)]
        scores = self.score([self.premise(item)] * len(parts), parts)
        return [
            *claims,
            *(
                Claim(part, "supported" if score >= self.threshold else "unsupported", "sentence")
                for part, score in zip(parts, scores, strict=True)
            ),
        ]

    def _is_judged(self, sentence: str, item: int) -> bool:
        if self.scope == "all":
            return True
        claims = self.fast.check(sentence, item)
        rejected = {one.about for one in claims if one.verdict != "supported"}
        return not claims or (self.scope == "words" and "word" in rejected)

    def supports(self, text: str, item: int) -> bool:
        """Whether both layers support all of a text."""
        return all(claim.verdict == "supported" for claim in self.check(text, item))

    def supported_share(self, texts: Sequence[str], items: Sequence[int]) -> float | None:
        """Share of all sentences of the texts about `items` that the premise entails; None without any."""
        pairs = [
            (self.premise(item), sentence)
            for text, item in zip(texts, items, strict=True)
            for sentence in sentences(text)
        ]
        if not pairs:
            return None
        premises, hypotheses = zip(*pairs, strict=True)
        return float((self.score(premises, hypotheses) >= self.threshold).mean())

    def score(self, premises: Sequence[str], claims: Sequence[str]) -> NDArray[np.float32]:
        """Probability that each premise entails its claim: float32 (len(premises),); 1, without the model,
        for a claim that is a sentence of its premise word by word."""
        known = {premise: set(map(_words_of, sentences(premise))) for premise in set(premises)}
        pairs = list(zip(premises, claims, strict=True))
        open_ = [row for row, (of, said) in enumerate(pairs) if _words_of(said) not in known[of]]
        scores = np.ones(len(pairs), dtype=np.float32)
        scores[open_] = self.judge.score(
            [premises[row] for row in open_], [claims[row] for row in open_]
        )
        return scores

    def premise(self, item: int) -> str:
        """What is known of an item: its facts, and its first training reviews."""
        facts = item_facts(self.fast.catalog, self.fast.keyword_index, int(item))
        return " ".join([facts, *self.fast.reviews(int(item))[:MAX_REVIEWS]])


def check_other_judge(filter_judge: str, score_judge: str) -> None:
    """Raises VitrineError where both settings name one model, by name or folder: no filter grades itself."""
    if not (filter_judge and score_judge):
        return
    if filter_judge == score_judge or _real(filter_judge) == _real(score_judge):
        raise VitrineError(
            f"judge and write.judge are both {score_judge!r}, and a filter never grades itself; name another "
            "model with --judge."
        )


def _real(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def check_other_weights(
    filter_judge: EntailmentJudge | None, score_judge: EntailmentJudge | None
) -> None:
    """Raises VitrineError where two names hold the same weights."""
    if filter_judge and score_judge and filter_judge.digest == score_judge.digest:
        raise VitrineError(
            f"judge {score_judge.name!r} and write.judge {filter_judge.name!r} have the same weights, and a "
            "filter never grades itself; name another model with --judge."
        )


def load_judge(
    name: str, label: str = "", compute: Compute | None = None, what: str = "judge"
) -> EntailmentJudge | None:
    """The entailment model of a setting; None where it is empty."""
    return EntailmentJudge(name, label, compute=compute, what=what) if name else None


def with_judge(
    checker: ClaimChecker, judge: EntailmentJudge | None, config: WriteConfig
) -> ClaimChecker | JudgedChecker:
    """The checker, joined by the entailment model where there is one."""
    if judge is None:
        return checker
    return JudgedChecker(checker, judge, config.judge_threshold, config.judge_scope)
