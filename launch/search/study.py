"""Searches each arm's hyperparameters by its validation targets, with as many trials for each arm.

Optuna proposes (TPE; Bergstra et al., 2011) and keeps a journal, `finetune.trial` trains and evaluates.
A trial's proposal is a function of the seed, its number and the trials before it, so that an
interrupted search ends as an uninterrupted one.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.artifacts import request_hash
from catalog.errors import DivergenceError, NonFiniteError, VitrineError
from finetune.config import ArmConfig, FinetuneConfig
from launch.console import print_status
from launch.search.config import SearchConfig
from launch.search.result import SearchResult, in_short, with_values
from launch.search.space import Choice, Range, space_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL = "search.journal"
RANDOM_TRIALS = 5
"""The first ones are proposed at random: nothing yet tells good from bad."""


def search_arms(
    config: SearchConfig,
    common: FinetuneConfig,
    arms: Mapping[str, ArmConfig],
    output: Path,
    build_trainer: Any,
    failed: dict[str, str] | None = None,
) -> dict[str, SearchResult]:
    """Searches every arm that has something to search; what the journal holds is not tried again.

    An arm all of whose trials diverged is added to `failed`, with the reason; where `failed` is None,
    DivergenceError is raised. Raises VitrineError for an invalid space, without Optuna, and on several
    devices.
    """
    if config.trials < 0 or config.steps < 0:
        raise VitrineError(
            f"search.trials is {config.trials} and search.steps is {config.steps}; give 0 or more"
        )
    if not config.trials:
        return {}
    spaces = {name: space_of(arm, config.space) for name, arm in arms.items()}
    devices = common.trainer.devices * common.trainer.nodes
    if devices > 1:
        raise VitrineError(
            f"a search runs on one device, and the trainer has {devices}; set "
            "--finetune.trainer.devices 1, or --search.trials 0"
        )
    try:
        import optuna
    except ImportError as error:
        raise VitrineError(
            "search.trials needs Optuna, which is not installed: pip install optuna"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    output.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, space in spaces.items():
        if space:
            search = ArmSearch(name, arms[name], config, common, space, output, build_trainer)
            try:
                results[name] = search.run()
            except DivergenceError as error:
                if failed is None:
                    raise
                failed[name] = str(error)
    return results


class ArmSearch:
    """One arm's trials, in a study that belongs to this request: other settings have their own study."""

    def __init__(
        self,
        name: str,
        arm: ArmConfig,
        config: SearchConfig,
        common: FinetuneConfig,
        space: Mapping[str, Range | Choice],
        output: Path,
        build_trainer: Any,
    ) -> None:
        from optuna import create_study
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.name, self.arm, self.config, self.space = name, arm, config, dict(space)
        self.build_trainer = build_trainer
        settings = arm.settings(common)
        steps = config.steps or settings.trainer.max_steps
        trainer = replace(settings.trainer, seed=config.seed, max_steps=steps)
        self.settings = replace(settings, trainer=trainer)
        self.folder = output / "search" / name.replace("/", "-")
        self.study = create_study(
            storage=JournalStorage(JournalFileBackend(str(output / JOURNAL))),
            study_name=f"{name} {self._request()[:12]}",
            direction="maximize",
            load_if_exists=True,
        )

    def run(self) -> SearchResult:
        """Runs the trials that are missing; DivergenceError where all of them diverged."""
        while len(self._ended()) < self.config.trials:
            trial = self._next()
            print_status(f"[{self._place(trial)}] {_in_words(trial.params)}")
            score = self._try(trial)
            print_status(
                f"[{self._place(trial)}] {'diverged' if score is None else f'{score:.4f}'}"
            )
        ended = self._ended()[: self.config.trials]
        good = [trial for trial in ended if trial.value is not None]
        if not good:
            raise DivergenceError(
                f"all {len(ended)} trials of {self.name} diverged; lower search.space.optimizer."
                "learning_rate"
            )
        best = max(good, key=lambda trial: (trial.value or 0.0, -trial.number))
        return SearchResult(
            trials=len(ended),
            diverged=len(ended) - len(good),
            space={name: str(range_) for name, range_ in self.space.items()},
            chosen=best.params,
            score=best.value or 0.0,
        )

    def _request(self) -> str:
        """The hash of everything the study's results depend on."""
        from catalog.catalog import load_catalog
        from pretrain.request import result_settings

        request = {
            "model": self.arm.model,
            "settings": result_settings(asdict(self.settings)),
            "space": {name: repr(range_) for name, range_ in self.space.items()},
        }
        encoder = self.settings.encoder
        parents = {"encoder": Path(encoder)} if encoder else {}
        return request_hash(
            "search", request, parents, load_catalog(self.settings.catalog).fingerprint
        )

    def _ended(self) -> "list[FrozenTrial]":
        return [trial for trial in self.study.get_trials() if trial.state.is_finished()]

    def _next(self) -> "FrozenTrial":
        """The trial that was under way when the search was stopped, or a new one."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == self.space.keys():
                return trial
        number = len(self.study.get_trials())
        # A seed for each trial: a new sampler with the same seed would propose the first ones again.
        seed = self.config.seed * 100_003 + number
        self.study.sampler = TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
        ranges = {name: _distribution(range_) for name, range_ in self.space.items()}
        trial = self.study.ask(ranges)
        return self.study.get_trials()[trial.number]

    def _try(self, trial: "FrozenTrial") -> float | None:
        """NDCG@10 of the trial, recorded in the journal; None where its training diverged."""
        from optuna.trial import TrialState

        from finetune.trial import run_trial

        settings = with_values(self.settings, trial.params)
        output = self.folder / f"trial-{trial.number}"
        try:
            score = run_trial(self.arm.model, settings, output, self.build_trainer)
            self.study.tell(trial.number, score)
        except (DivergenceError, NonFiniteError):
            score = None
            self.study.tell(trial.number, state=TrialState.FAIL)
        shutil.rmtree(output.with_name(f"{output.name}.work"), ignore_errors=True)
        return score

    def _place(self, trial: "FrozenTrial") -> str:
        return f"search {self.name}, trial {trial.number + 1}/{self.config.trials}"


def _distribution(range_: Range | Choice) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(range_, Choice):
        return CategoricalDistribution(range_.values)
    if range_.whole:
        return IntDistribution(int(range_.low), int(range_.high), log=range_.log)
    return FloatDistribution(range_.low, range_.high, log=range_.log)


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {in_short(value)}" for name, value in values.items())
