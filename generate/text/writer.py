"""Writes texts for requests with a text-generator artifact: for commands, batch jobs and evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from catalog.artifacts import Artifact, open_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from catalog.reorder import reorder_histories
from catalog.splits import Split, make_split
from generate.conditioning import Ranker
from generate.ranker import load_catalog_and_ranker
from generate.requests import GenerationRequest, user_requests
from generate.text.checkpoint import load_text_generator
from generate.text.config import WriteConfig
from generate.text.faithfulness import ClaimChecker
from generate.text.hosted import hosted_model
from generate.text.judge import EntailmentJudge, load_judge, with_judge
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions, Prompts, prompts_of
from generate.text.shared_prompt import shared_prompt_nll
from generate.text.task_texts import TaskTexts
from generate.text.tasks import Task
from generate.text.verification import ClaimVerifier, VerifiedText
from pretrain.devices import Compute, on_cpu


@dataclass(frozen=True)
class GeneratedText:
    text: str
    task: str
    user: str | None
    """Id of the user; None: unconditional."""
    item: str | None
    """Id of the item; None: generated without an item."""
    seed: int
    from_catalog: bool
    """Whether the text is the catalog's own: the fallback of `verify_claims`."""
    attempts: int
    """Number of texts that were generated until this one was accepted."""
    generator: str
    """Content hash of the generator's artifact."""


@dataclass(eq=False)
class BatchWriter:
    """A text generator with the catalog and the recommender it was trained with."""

    generator: TextGenerator
    catalog: Catalog
    ranker: Ranker
    hash: str
    split_config: SplitConfig
    """Split whose training reviews are evidence for `verify_claims`."""
    split: Split | None = None
    """The split by which histories of `catalog` are ordered; None: full histories, as when serving."""
    compute: Compute | None = None
    """Device and precision of an entailment model; None: float32 on the CPU."""
    _judges: dict[tuple[str, str], EntailmentJudge | None] = field(default_factory=dict)

    @cached_property
    def checker(self) -> ClaimChecker:
        if self.split is not None:
            return ClaimChecker(self.catalog, self.split)
        arranged = reorder_histories(self.catalog, self.split_config)
        return ClaimChecker(arranged, make_split(arranged, self.split_config))

    def judge(self, config: WriteConfig) -> EntailmentJudge | None:
        """The entailment model of the settings, loaded once."""
        key = (config.judge, config.judge_label)
        if key not in self._judges:
            self._judges[key] = load_judge(*key, compute=self.compute)
        return self._judges[key]

    @cached_property
    def prompts(self) -> Prompts:
        return prompts_of(self.generator.settings, self.catalog, self.ranker)

    @cached_property
    def catalog_texts(self) -> TaskTexts:
        tasks = self.generator.settings.tasks
        return TaskTexts(self.checker.catalog, tasks, self.checker.keyword_index)

    def write(
        self,
        user: str | None = None,
        item: str | None = None,
        task: str = "description",
        config: WriteConfig | None = None,
        num_texts: int = 1,
    ) -> list[GeneratedText]:
        """Generates texts about an item for a user, either of which may be None; seeds count up.

        Raises VitrineError for ids the catalog lacks and tasks the generator was not trained on.
        """
        config = config or WriteConfig()
        if item is None and config.verify_claims:
            raise VitrineError("verify_claims checks a text against an item; name one with --item.")
        seeds = range(config.seed, config.seed + num_texts)
        requests = user_requests(self.catalog, self.ranker, user, item, seeds)
        return self.write_batch(requests, task, config)

    def write_batch(
        self, requests: Sequence[GenerationRequest], task: str, config: WriteConfig
    ) -> list[GeneratedText]:
        """Generates one text for each request; the requests' seeds replace `config.seed`.

        With `verify_claims`, and if every request names an item, only texts are accepted whose claims the
        catalog supports.
        """
        return [
            GeneratedText(
                verified.text,
                task,
                *self._ids(request),
                request.seed,
                verified.from_catalog,
                verified.attempts,
                self.hash,
            )
            for request, verified in zip(requests, self._write(requests, task, config), strict=True)
        ]

    def _write(
        self, requests: Sequence[GenerationRequest], task: str, config: WriteConfig
    ) -> list[VerifiedText]:
        conditions = self.prompts.make(requests, self._task(task))
        seeds = [request.seed for request in requests]
        items = [request.item for request in requests if request.item is not None]
        if not config.verify_claims or len(items) < len(requests):
            texts = self.generator.write(conditions, task, seeds=seeds, config=config)
            return [VerifiedText(text, (), 1, from_catalog=False) for text in texts]
        if config.max_attempts < 1:
            raise VitrineError(f"max_attempts is {config.max_attempts}; give 1 or more.")
        checker = with_judge(self.checker, self.judge(config), config)
        verifier = ClaimVerifier(self.generator, checker, self.catalog_texts)
        return verifier.write(conditions, items, task, seeds=seeds, config=config)

    def text_nll(
        self, requests: Sequence[GenerationRequest], task: str, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Summed NLL (nats) and number of tokens of given texts for requests: (requests,) both. The prompts
        say nothing that the task restates (`Task.restated`)."""
        asked = self._task(task)
        hidden = asked.restated if asked else frozenset()
        return self.generator.text_nll(self.prompts.make(requests, asked, hidden), task, texts)

    def stream(
        self,
        user: str | None = None,
        item: str | None = None,
        task: str = "description",
        config: WriteConfig | None = None,
    ) -> Iterator[str]:
        """The first text of `write`, streamed; in one piece with `verify_claims` or another engine."""
        config = config or WriteConfig()
        if config.verify_claims or self.generator.engine or self.generator.hosted:
            yield self.write(user, item, task, config)[0].text
            return
        conditions = self.prompts.make(
            user_requests(self.catalog, self.ranker, user, item, [config.seed]), self._task(task)
        )
        (request,) = self.generator.requests(conditions, task, seeds=[config.seed], config=config)
        (item_text,) = self.generator.item_texts(conditions, task) or [""]
        yield from self.generator.stream(request, item_text)

    def distinct_prompts(
        self, requests: Sequence[GenerationRequest], task: str
    ) -> tuple[list[Conditions], list[int]]:
        """The conditions of requests without those that are equal, one row each; and which of them each
        request has."""
        made = self.prompts.make(requests, self._task(task))
        known: dict[object, int] = {}
        found: list[Conditions] = []
        places: list[int] = []
        for row in range(len(requests)):
            one = made.take([row])
            key = (
                None if one.user_states is None else one.user_states.cpu().numpy().tobytes(),
                None if one.item_vectors is None else one.item_vectors.cpu().numpy().tobytes(),
                *(one.data or ()),
                *(one.style_texts or ()),
            )
            if key not in known:
                known[key] = len(found)
                found.append(one)
            places.append(known[key])
        return found, places

    def shared_prompt_nll(self, conditions: Conditions, task: str, texts: Sequence[str]) -> Tensor:
        """Summed NLL (nats) of given texts after one prompt of `distinct_prompts`: (texts,)."""
        return shared_prompt_nll(self.generator, conditions, task, texts)

    def _task(self, name: str) -> Task | None:
        """The task of a name; None for one that the generator does not know, which it refuses itself."""
        return next((one for one in self.generator.settings.tasks if one.name == name), None)

    def _ids(self, request: GenerationRequest) -> tuple[str | None, str | None]:
        user, item = request.prefix.user, request.item
        return (
            None if user is None else str(self.catalog.user_ids[user]),
            None if item is None else self.catalog.items.data.column("item_id")[item].as_py(),
        )


def load_writer(
    folder: str | Path | Artifact,
    catalog: CatalogConfig | None = None,
    recommender: str | Path = "",
    shared_base: BatchWriter | None = None,
    config: WriteConfig | None = None,
    compute: Compute | None = None,
) -> BatchWriter:
    """Loads the writer of a text-generator artifact.

    `catalog` and `recommender` are as in `load_catalog_and_ranker`.
    `shared_base`: a writer for other tasks, or another domain, on the same pretrained language model,
    which is then held in memory once; each activates its own LoRA adapter when it writes.
    `config`: names the inference engine. `compute`: device and precision; None: float32 on the CPU.
    """
    config = config or WriteConfig()
    compute = compute or on_cpu()
    artifact = open_artifact(folder, kind="text-generator")
    read, ranker = load_catalog_and_ranker(artifact, catalog, recommender, compute)
    split = SplitConfig(**artifact.manifest["config"]["split"])
    base = shared_base.generator if shared_base else None
    generator = compute.place(load_text_generator(artifact.path, base))
    generator.precision = compute.precision
    if config.engine == "openai":
        if generator.settings.prompt != "facts":
            raise VitrineError(
                f"a hosted model reads facts in words, and {artifact.path} was made without; train it with "
                "prompt facts (train false takes no time)"
            )
        generator.hosted = hosted_model(config)
    if config.engine == "vllm":
        from generate.text.engine import vllm_engine

        generator.engine = vllm_engine(generator, artifact.path)
    return BatchWriter(generator, read, ranker, artifact.hash, split, compute=compute)


def write(
    folder: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    task: str = "description",
    config: WriteConfig | None = None,
    recommender: str | Path = "",
    compute: Compute | None = None,
) -> str:
    """Generates one text from an artifact's folder; for several, call `load_writer` once."""
    writer = load_writer(folder, recommender=recommender, config=config, compute=compute)
    return writer.write(user, item, task, config)[0].text
