"""Hyperparameter search: by validation alone, equal trials for each arm, equal after an interruption."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import finetune.trial
from catalog.artifacts import open_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import DivergenceError, VitrineError
from catalog.reorder import reorder_histories
from catalog.splits import Split, load_split, make_split, target_rows, without_test_targets
from finetune.config import ArmConfig, FinetuneConfig, FinetuneDataConfig, MatrixFactorizationConfig
from finetune.fitting import FitRequest
from launch.compare.arms import default_arms
from launch.compare.config import CompareConfig
from launch.compare.run import run_comparison
from launch.search.config import SearchConfig
from launch.search.result import SearchResult
from launch.search.space import Choice, Range, space_of
from launch.search.study import JOURNAL, search_arms
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import SequenceConfig, TrainerConfig

ARMS = {
    "ids": ArmConfig(transfer="scratch", features="id"),
    "bpr/mf": ArmConfig(model="bpr-mf"),
    "item-knn": ArmConfig(model="item-knn"),
    "popularity": ArmConfig(model="popularity"),
}
LAST = SplitConfig(kind="leave-one-out")


@pytest.fixture
def common(demo_world: Path) -> FinetuneConfig:
    return FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        split=LAST,
        width=16,
        sequence=SequenceConfig(layers=1, heads=2, max_history=6),
        data=FinetuneDataConfig(rows=2),
        trainer=TrainerConfig(max_steps=3, progress=False),
        matrix_factorization=MatrixFactorizationConfig(width=8, batch_size=64, max_epochs=2),
    )


def proposals(output: Path) -> dict[str, list[tuple[dict[str, Any], float | None]]]:
    """What the journal holds: arm → (settings, figure) of each trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(output / JOURNAL)))
    studies = optuna.get_all_study_names(storage)
    found = {name: optuna.load_study(study_name=name, storage=storage) for name in studies}
    return {
        name.rpartition(" ")[0]: [(trial.params, trial.value) for trial in study.get_trials()]
        for name, study in found.items()
    }


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[FinetuneConfig]:
    """Trials are not trained: a rate near .002 is best. Returns the settings that were tried."""
    tried: list[FinetuneConfig] = []

    def run_trial(model: str, config: FinetuneConfig, output: Path, build: Any) -> float:
        tried.append(config)
        build(output)
        return -abs(float(np.log10(config.optimizer.learning_rate / 0.002)))

    monkeypatch.setattr(finetune.trial, "run_trial", run_trial)
    return tried


def untroubled(output: Path) -> None:
    """What `pretended` trials do beside: nothing."""


def search(
    common: FinetuneConfig,
    output: Path,
    trials: int = 7,
    build: Callable[[Path], None] = untroubled,
    **config: Any,
) -> SearchResult:
    arms = {"ids": ARMS["ids"]}
    return search_arms(SearchConfig(trials, **config), common, arms, output, build)["ids"]


def test_every_arm_has_as_many_trials_and_is_trained_with_its_best(
    common: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CompareConfig(
        finetune=common,
        arms=ARMS,
        reference="ids",
        seeds=1,
        search=SearchConfig(trials=2, space={"item_knn": {"k": [2, 9]}}),
    )
    report = run_comparison(config, tmp_path / "run", build_trainer)
    tried = proposals(tmp_path / "run")
    assert {name: len(trials) for name, trials in tried.items()} == {
        "ids": 2,
        "bpr/mf": 2,
        "item-knn": 2,
    }
    words = report.with_suffix(".md").read_text(encoding="utf8")
    page = report.read_text(encoding="utf8")
    table = {row["arm"]: row for row in pq.read_table(report.with_name("arms.parquet")).to_pylist()}
    assert table["popularity"]["trials"] is None
    for name, trials in tried.items():
        settings, score = max(trials, key=lambda trial: trial[1] or 0)
        kind = "recommender" if name == "ids" else "baseline"
        folder = tmp_path / "run" / "arms" / name.replace("/", "-") / "seed-0"
        manifest = open_artifact(folder, kind=kind).manifest
        assert table[name]["trials"] == 2
        for setting, value in settings.items():
            part, _, field = setting.rpartition(".")
            used = manifest["config"][part] if part else manifest["config"]
            assert used[field] == pytest.approx(value)
            assert table[name][f"search/{setting}"] == pytest.approx(value)
            assert setting in page
        # The arm is trained with the seed of its trials, and so comes to the same figure.
        assert manifest["metrics"]["validation_ndcg@10"] == pytest.approx(score)
        assert f"| {name} | 2 | 0 | {score:.4f} | " in words
    assert "| 2 … 9 |" in words
    assert "best of 2 trials for each arm" in page
    assert "Nothing was searched for popularity." in words
    sentences = {line.split(" ")[1]: line for line in words.splitlines() if line.startswith("- ")}
    assert sentences["Popularity"].endswith("; only the settings of ids were searched.")
    assert "searched" not in sentences["Bpr/mf"]
    assert "only the settings of ids were searched" in page

    assert not list((tmp_path / "run" / "search").rglob("*.work"))
    capsys.readouterr()
    run_comparison(config, tmp_path / "run", build_trainer)
    said = capsys.readouterr().err
    assert "trial" not in said.replace("trials", "")
    assert said.count("done earlier") == 4


def test_no_trial_sees_the_test_targets(
    common: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other items as test targets, every trial proposes and scores the same."""
    arms = {name: ARMS[name] for name in ("ids", "bpr/mf", "item-knn")}
    search_arms(SearchConfig(2), common, arms, tmp_path / "own", build_trainer)

    def otherwise(*configs: Any) -> tuple[Catalog, Split]:
        catalog, split = load_split(*configs)
        rows = target_rows(catalog.interactions, split.test)
        assert len(rows) > 20
        items = np.array(catalog.interactions.items)
        items[rows] = (items[rows] + 1) % catalog.num_items
        return replace(catalog, interactions=replace(catalog.interactions, items=items)), split

    monkeypatch.setattr(finetune.trial, "load_split", otherwise)
    search_arms(SearchConfig(2), common, arms, tmp_path / "other", build_trainer)
    own = proposals(tmp_path / "own")
    assert own == proposals(tmp_path / "other")
    assert all(score for _, score in own["item-knn"])


@pytest.mark.parametrize(("arm", "fits"), [("ids", "fit_each"), ("bpr/mf", "fit_baseline")])
def test_a_trial_is_handed_no_test_target(
    common: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str, fits: str
) -> None:
    handed: list[Any] = []

    def record(*arguments: Any) -> None:
        handed.extend(arguments)
        raise DivergenceError("seen enough")

    monkeypatch.setattr(finetune.trial, fits, record)
    with pytest.raises(VitrineError, match="all 1 trials"):
        search_arms(SearchConfig(1), common, {arm: ARMS[arm]}, tmp_path, build_trainer)
    (request,) = [argument for argument in handed if isinstance(argument, FitRequest)]
    catalog, split = request.catalog, request.split
    whole, real = load_split(common.catalog, common.split)
    assert len(split.test) == 0 < len(real.test)
    assert len(catalog.interactions) == len(whole.interactions) - len(real.test)


@pytest.mark.parametrize("kind", ["leave-one-out", "temporal", "random"])
def test_without_test_targets_a_catalog_ends_before_them(common: FinetuneConfig, kind: Any) -> None:
    config = SplitConfig(kind)
    whole = reorder_histories(load_catalog(common.catalog), config)
    split = make_split(whole, config)
    before, cut = without_test_targets(whole, split)
    assert len(cut.test) == 0
    assert len(split.test) > 10
    lost = set()
    for user in range(whole.num_users):
        kept = before.interactions.history(user)
        history = whole.interactions.history(user)
        assert kept.tolist() == history[: len(kept)].tolist()
        if len(kept) < len(history):
            lost.add((user, len(kept)))
    first = split.test.first_per_user()  # what they took after it is lost with it
    assert lost == set(zip(first.users.tolist(), first.positions.tolist(), strict=True))
    for targets in (split.validation, cut.validation):
        wanted = whole.interactions.items[target_rows(whole.interactions, targets)]
        assert (
            before.interactions.items[target_rows(before.interactions, targets)] == wanted
        ).all()


def test_a_stopped_search_resumes_as_if_uninterrupted(
    common: FinetuneConfig, pretended: list[FinetuneConfig], tmp_path: Path
) -> None:
    expected = search(common, tmp_path / "whole")
    for stop in (2, 6):

        def interrupt(output: Path, stop: int = stop) -> None:
            if output.name == f"trial-{stop}":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(common, tmp_path / "stopped", build=interrupt)
    done = len(pretended)
    assert search(common, tmp_path / "stopped") == expected
    assert len(pretended) - done == 1
    assert proposals(tmp_path / "stopped") == proposals(tmp_path / "whole")
    values = [
        settings["optimizer.learning_rate"] for settings, _ in proposals(tmp_path / "whole")["ids"]
    ]
    assert len(set(values)) == 7
    assert expected.chosen["optimizer.learning_rate"] == min(
        values, key=lambda rate: abs(np.log10(rate / 0.002))
    )


def test_more_trials_are_added_and_fewer_are_the_first(
    common: FinetuneConfig, pretended: list[FinetuneConfig], tmp_path: Path
) -> None:
    few = search(common, tmp_path, 3)
    assert search(common, tmp_path, 7).trials == 7
    assert len(pretended) == 7
    assert search(common, tmp_path, 3) == few
    assert len(pretended) == 7
    # Another space, budget or shop is another question; how a trial is run is not.
    search(common, tmp_path, 3, steps=2)
    assert len(pretended) == 10
    assert {trial.trainer.max_steps for trial in pretended[:7]} == {3}
    assert {trial.trainer.max_steps for trial in pretended[7:]} == {2}
    search(common, tmp_path, 3, space={"dropout": None})
    assert len(pretended) == 13
    quiet = replace(common, trainer=replace(common.trainer, log_every=3, progress=True))
    search(quiet, tmp_path, 3)
    assert len(pretended) == 13


def test_a_trial_that_diverges_counts_as_one(
    common: FinetuneConfig, pretended: list[FinetuneConfig], tmp_path: Path
) -> None:
    def diverge(*numbers: int) -> Callable[[Path], None]:
        def build(output: Path) -> None:
            if int(output.name.removeprefix("trial-")) in numbers:
                raise DivergenceError("10 steps in a row")

        return build

    found = search(common, tmp_path / "some", 4, diverge(0, 2))
    assert (found.trials, found.diverged) == (4, 2)
    assert len(pretended) == 4
    with pytest.raises(VitrineError, match="all 2 trials of ids diverged"):
        search(common, tmp_path / "all", 2, diverge(0, 1))

    def mistaken(output: Path) -> None:
        raise VitrineError("the encoder is not there")

    with pytest.raises(VitrineError, match="is not there"):
        search(common, tmp_path / "mistaken", 2, mistaken)


def test_a_diverging_learning_rate_is_distinguished_from_a_user_error(
    common: FinetuneConfig, tmp_path: Path
) -> None:
    wild = replace(
        common, trainer=TrainerConfig(max_steps=60, max_nonfinite_steps=2, progress=False)
    )
    space = {"matrix_factorization.learning_rate": [1e30, 1e36, "log"], "dropout": [0, 0.5]}
    arms = {"bpr": ArmConfig(model="bpr-mf")}
    with pytest.raises(VitrineError, match="all 1 trials of bpr diverged"):
        search_arms(SearchConfig(1, space=space), wild, arms, tmp_path, build_trainer)


def test_spaces_are_those_an_arm_reads() -> None:
    arms = default_arms(["text", "image"])
    given = {"lora": {"rank": [4, 8, "choice"]}, "item_knn.k": [5, 50]}
    spaces = {name: space_of(arm, given) for name, arm in arms.items()}
    ours = {"optimizer.learning_rate", "optimizer.weight_decay", "dropout"}
    assert spaces["popularity"] == spaces["zero-shot"] == {}
    assert set(spaces["frozen"]) == set(spaces["id"]) == set(spaces["scratch"]) == ours
    assert set(spaces["lora"]) == set(spaces["text only"]) == ours | {"lora.rank"}
    assert spaces["lora"]["lora.rank"] == Choice((4, 8))
    pairwise = {"matrix_factorization.learning_rate", "matrix_factorization.regularization"}
    assert set(spaces["bpr-mf"]) == set(spaces["vbpr"]) == pairwise
    assert spaces["item-knn"] == {
        "item_knn.k": Range(5, 50, whole=True),
        "item_knn.shrink": Range(1, 1000, log=True),
    }
    assert "dropout" not in space_of(arms["lora"], {"dropout": None})


def test_a_space_is_written_the_same_way_in_a_file_and_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "search: {trials: 4, space: {optimizer.learning_rate: [1e-5, 1e-2, log], dropout: [0, .4]}}"
    )
    line = ["--search.trials", "4", "--search.space.optimizer.learning_rate", "[1e-5, 1e-2, log]"]
    line += ["--search.space.dropout=[0, .4]"]
    for file, overrides in ((tmp_path / "a.yaml", []), (None, line)):
        read = load_settings(CompareConfig, file, overrides)
        assert read.search.trials == 4
        space = space_of(ARMS["ids"], read.search.space)
        assert space["optimizer.learning_rate"] == Range(1e-5, 1e-2, log=True)
        assert space["dropout"] == Range(0, 0.4)
        assert str(space["optimizer.learning_rate"]) == "1e-05 … 0.01, log"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"optimizer.learning_rat": [0, 1]},
            r"no setting that arms.* Did you mean 'optimizer.lear",
        ),
        (
            {"split": {"kind": ["random", "given", "choice"]}},
            r"names 'split.kind', which is no sett",
        ),
        ({"trainer.max_steps": [1, 9]}, r"names 'trainer.max_steps', which is no setting"),
        ({"validation_users": [1, 9]}, r"which is no setting"),
        ({"dropout": 0.5}, r"search.space.dropout is 0.5; write \[low, high\], \[low, high, log\]"),
        ({"dropout": [0, 0.1, 0.2]}, r"write \[low, high\]"),
        ({"dropout": ["a", "b"]}, r"with 'a' in it; each value must be a number of at least 0 and"),
        ({"dropout": [-0.5, 0.5]}, r"with -0.5 in it; each value must be a number of at least 0"),
        ({"dropout": [0, float("nan")]}, r"with nan in it"),
        ({"optimizer.learning_rate": [1, float("inf")]}, r"with inf in it; .* a number above 0"),
        ({"dropout": [0.5, 0]}, r"goes from 0.5 to 0; low must be below high"),
        ({"dropout": [0, 0.5, "log"]}, r"goes from 0 to 0.5; .* above 0 for log"),
        ({"lora.rank": [1.5, 8]}, r"lora.rank is \[1.5, 8\], with 1.5 in it; .* whole number"),
    ],
)
def test_an_invalid_search_space_is_one_line(space, message) -> None:
    with pytest.raises(VitrineError, match=message):
        space_of(ArmConfig(), space)


def test_user_errors_are_reported_before_anything_is_trained(
    common: FinetuneConfig,
    pretended: list[FinetuneConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(VitrineError, match=r"search\.trials is -1 and search.steps is 0"):
        search(common, tmp_path, -1)
    two = replace(common, trainer=replace(common.trainer, devices=2))
    with pytest.raises(VitrineError, match=r"one device, and the trainer has 2; .*devices 1"):
        search(two, tmp_path)
    assert search_arms(SearchConfig(), two, ARMS, tmp_path, untroubled) == {}
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(VitrineError, match=r"needs Optuna, .* pip install optuna"):
        search(common, tmp_path)
    assert not pretended
    assert not list(tmp_path.iterdir())


def test_without_validation_targets_there_is_nothing_to_choose_by(
    common: FinetuneConfig, tmp_path: Path
) -> None:
    without_targets = replace(common, split=replace(LAST, min_history=10_000))
    with pytest.raises(VitrineError, match="has no validation targets, and settings are chosen by"):
        search_arms(SearchConfig(1), without_targets, ARMS, tmp_path, build_trainer)
