"""Items that came after training: ranked from their content, and nothing else is touched."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.artifacts import artifact_hash, open_artifact, write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.config import FinetuneConfig
from finetune.evaluate_artifact import evaluate_recommender
from finetune.extension import Extension, extend
from finetune.manifest import train_counts
from finetune.ranker import Ranker, load_ranker
from finetune.recommendations import recommend
from finetune.run import run_finetuning
from launch.cli import main
from launch.trainer import build_trainer

GONE = ["w00003", "w00017", "w00041"]


@pytest.fixture(scope="module")
def smaller(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second shop without three items, the others the other way round; histories name them all."""
    folder = tmp_path_factory.mktemp("smaller") / "wardrobe"
    shutil.copytree(demo_world / "wardrobe", folder)
    lines = (folder / "items.jsonl").read_text().splitlines()[::-1]
    left = [line for line in lines if json.loads(line)["item_id"] not in GONE]
    assert len(left) == len(lines) - len(GONE)
    (folder / "items.jsonl").write_text("\n".join(left) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted with LoRA to the whole shop."""
    config = replace(settings, optimizer=replace(settings.optimizer, learning_rate=0.02))
    return run_finetuning(config, tmp_path_factory.mktemp("whole") / "run", build_trainer)


def ranker_of(folder: Path) -> tuple[Ranker, dict[str, int]]:
    """The shop, and its rows by item id."""
    config = open_artifact(folder).manifest["config"]["catalog"]
    catalog = load_catalog(CatalogConfig(**config))
    return load_ranker(folder, catalog), {
        item: row for row, item in enumerate(catalog.items["item_id"][:])
    }


def vectors_by_id(folder: Path) -> dict[str, np.ndarray]:
    ranker, rows = ranker_of(folder)
    return {item: np.array(ranker.item_vectors[row]) for item, row in rows.items()}


def there_and_back(run: Path, smaller: Path, folder: Path) -> tuple[Path, Path, Extension]:
    """The recommender without the three items, and that one with them added again."""
    ranker = open_artifact(run).manifest["config"]["catalog"]["path"]
    without = extend(run, folder / "without", str(smaller))
    assert (without.kept, without.added, without.removed) == (77, 0, 3)
    assert without.dropped > 0
    again = extend(without.path, folder / "again", ranker)
    assert (again.kept, again.added, again.removed) == (77, 3, 0)
    return without.path, again.path, again


@pytest.mark.parametrize("mode", ["lora", "scratch", "zero-shot"])
def test_an_added_item_has_the_vector_that_training_would_have_left_it(
    mode: str, whole: Path, settings: FinetuneConfig, smaller: Path, tmp_path: Path
) -> None:
    run = whole
    if mode != "lora":
        run = run_finetuning(replace(settings, transfer=mode), tmp_path / "run", build_trainer)  # pyright: ignore[reportArgumentType]
    before = vectors_by_id(run)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    without, again, _ = there_and_back(run, smaller, tmp_path)
    kept, found = vectors_by_id(without), vectors_by_id(again)
    assert set(before) - set(kept) == set(GONE)
    assert set(found) == set(before)
    for item, vector in before.items():
        if item in GONE:
            np.testing.assert_allclose(found[item], vector, atol=1e-5)
        else:
            assert kept[item].tobytes() == found[item].tobytes() == vector.tobytes()
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_only_what_the_setting_only_names_is_read_of_an_added_item(
    settings: FinetuneConfig, smaller: Path, tmp_path: Path
) -> None:
    config = replace(settings, modalities="text", transfer="frozen")
    run = run_finetuning(config, tmp_path / "run", build_trainer)
    _, again, _ = there_and_back(run, smaller, tmp_path)
    before, found = vectors_by_id(run), vectors_by_id(again)
    for item in GONE:
        np.testing.assert_allclose(found[item], before[item], atol=1e-5)


def test_added_items_are_recommended_and_removed_ones_are_not(
    whole: Path, smaller: Path, tmp_path: Path
) -> None:
    without, again, _ = there_and_back(whole, smaller, tmp_path)
    ranker, rows = ranker_of(again)
    history = "w00001,w00002"
    listed = recommend(again, history=history, k=78)
    assert set(GONE) <= set(listed.item_ids)
    state = ranker.user_states([np.array([rows["w00001"], rows["w00002"]])])[0]
    place = listed.item_ids.index(GONE[0])
    score = state @ torch.from_numpy(np.array(ranker.item_vectors[rows[GONE[0]]]))
    assert listed.scores[place] == pytest.approx(score.item(), abs=1e-5)
    assert not set(GONE) & set(recommend(without, history=history, k=77).item_ids)
    with pytest.raises(VitrineError, match="has no item 'w00003'"):
        recommend(without, history="w00003")
    assert np.isfinite(evaluate_recommender(again)["ndcg@10"])


def test_popularity_goes_along_by_id(whole: Path, smaller: Path, tmp_path: Path) -> None:
    without, again, _ = there_and_back(whole, smaller, tmp_path)
    counts = {}
    for run in (whole, without, again):
        _, rows = ranker_of(run)
        of_rows = train_counts(run)
        counts[run] = {item: int(of_rows[row]) for item, row in rows.items()}
    assert counts[without].items() <= counts[whole].items()
    assert counts[again] == {**counts[whole], **dict.fromkeys(GONE, 0)}


@pytest.mark.parametrize("id_width", [0, 16])
def test_added_items_get_zero_or_imputed_id_embeddings(
    id_width: int, settings: FinetuneConfig, smaller: Path, tmp_path: Path
) -> None:
    optimizer = replace(settings.optimizer, learning_rate=0.02)
    config = replace(settings, features="content+id", id_width=id_width, optimizer=optimizer)
    run = run_finetuning(config, tmp_path / "run", build_trainer)
    _, again, _ = there_and_back(run, smaller, tmp_path)
    before, found = vectors_by_id(run), vectors_by_id(again)
    ranker, rows = ranker_of(run)
    taken = {item: train_counts(run)[rows[item]] > 0 for item in GONE}
    assert set(taken.values()) == {True, False}
    for item in GONE:
        assert np.linalg.norm(found[item]) == pytest.approx(1, abs=1e-5)
        if taken[item]:  # it had one, which is lost
            assert np.abs(found[item] - before[item]).max() > 1e-4
        else:
            np.testing.assert_allclose(found[item], before[item], atol=1e-4)
        if id_width:
            content = slice(0, ranker.width - id_width)
            np.testing.assert_allclose(found[item][content], before[item][content], atol=1e-5)
            assert np.linalg.norm(found[item][content.stop :]) == pytest.approx(0.5**0.5, abs=1e-5)


@pytest.mark.parametrize("features", ["id", "random"])
def test_who_knows_items_by_id_alone_refuses_in_one_line(
    features: str, settings: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(settings, transfer="scratch", features=features, encoder="")  # pyright: ignore[reportArgumentType]
    run = run_finetuning(config, tmp_path / "run", build_trainer)
    assert main(["extend", str(run), "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"features '{features}', which say nothing of a new item" in line
    assert not (tmp_path / "out").exists()


def test_the_command_reports_kept_added_and_removed_items(
    whole: Path, smaller: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["extend", str(whole), "--catalog", str(smaller), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert output.err.startswith("77 items unchanged, 0 added, 3 removed; ")
    assert output.out.strip() == str(tmp_path / "out")
    assert main(["extend", str(whole), "--output", str(whole)]) == 2
    assert "is the recommender itself" in capsys.readouterr().err


def test_other_items_altogether_are_refused(whole: Path, demo_world: Path, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="has a vector for none of the 80 items of home"):
        extend(whole, tmp_path / "out", str(demo_world / "home"))


def test_an_extension_remembers_whose_weights_it_has(
    whole: Path, smaller: Path, tmp_path: Path
) -> None:
    without, again, _ = there_and_back(whole, smaller, tmp_path)
    config = open_artifact(again).manifest["config"]
    assert config["extends"] == [artifact_hash(whole), artifact_hash(without)]
    assert open_artifact(again).parent("recommender") == without


def test_an_empty_history_gets_popular_items(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = ranker_of(whole)
    counts = train_counts(whole)
    assert main(["recommend", str(whole), "--history", "", "--k", "3"]) == 0
    output = capsys.readouterr()
    assert output.err == "no history: these are the most popular items of training\n"
    listed = [line.split()[2] for line in output.out.splitlines()[1:]]
    assert [counts[rows[item]] for item in listed] == sorted(counts)[::-1][:3]
    assert main(["recommend", str(whole), "--history", "w00001", "--k", "3"]) == 0
    assert capsys.readouterr().err == ""


def test_a_recommender_without_training_counts_is_refused(whole: Path, tmp_path: Path) -> None:
    old, made = tmp_path / "old", open_artifact(whole)
    with write_artifact(
        old,
        kind="recommender",
        config=made.manifest["config"],
        parents={"encoder": made.parent("encoder")},
    ) as staging:
        left_out = shutil.ignore_patterns("train_counts.npy", "manifest.json", "README.md")
        shutil.copytree(whole, staging.path, dirs_exist_ok=True, ignore=left_out)
    assert recommend(old, history="w00001", k=3).source == "history"
    with pytest.raises(VitrineError, match="does not say how popular its items were"):
        recommend(old, history="")
    assert extend(old, tmp_path / "out").kept == 80
