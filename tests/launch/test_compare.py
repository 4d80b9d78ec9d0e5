"""Comparing arms: which arms are trained, which contrasts are tested, and which verdicts follow."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from catalog.artifacts import open_artifact
from catalog.config import CatalogConfig
from catalog.errors import DivergenceError, VitrineError
from finetune.config import ArmConfig, FinetuneConfig, FinetuneDataConfig, MatrixFactorizationConfig
from finetune.metrics import metric_values
from finetune.run import run_finetuning
from finetune.significance import Difference, compare_pairs, describe_difference
from finetune.statistics import Interval
from launch.compare.arms import IMPUTATIONS, chosen_arms, default_arms
from launch.compare.config import CompareConfig
from launch.compare.contrasts import planned_contrasts, seed_independent_arms
from launch.compare.convergence import CURVE, LEVEL, convergence_sentences, steps_to_scratch
from launch.compare.page import comparison_page
from launch.compare.results import Comparison
from launch.compare.run import run_comparison
from launch.pipeline.config import PipelineConfig
from launch.pipeline.stage import Stage, recommender_stage
from launch.report.contents import ArmRow
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.config import SequenceConfig, TrainerConfig
from pretrain.run import run_pretraining

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(scope="module")
def config(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> CompareConfig:
    settings = load_settings(PipelineConfig, TINY, [])
    catalog = CatalogConfig(path=str(demo_world / "home"))
    trainer = replace(settings.pretrain.trainer, progress=False)
    encoder = run_pretraining(
        replace(settings.pretrain, catalog=catalog, trainer=trainer),
        tmp_path_factory.mktemp("encoder") / "encoder",
        build_trainer,
    )
    return CompareConfig(
        finetune=replace(
            settings.finetune,
            encoder=str(encoder),
            catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
            trainer=TrainerConfig(max_steps=2, progress=False),
            matrix_factorization=MatrixFactorizationConfig(width=8, batch_size=64, max_epochs=2),
        ),
        seeds=2,
        include="popularity,item-knn,vbpr,id,text only,scratch,lora",
    )


@pytest.fixture(scope="module")
def compared(config: CompareConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compare") / "run"
    return run_comparison(config, output, build_trainer).parent


def test_every_arm_and_seed_is_an_artifact_and_a_row(compared: Path) -> None:
    rows = pq.read_table(compared / "arms.parquet").to_pylist()
    by_arm = {row["arm"]: [r["seed"] for r in rows if r["arm"] == row["arm"]] for row in rows}
    twice = ("vbpr", "id", "text only", "scratch", "lora")
    assert by_arm == {"popularity": [0], "item-knn": [0]} | {name: [0, 1] for name in twice}
    for row in rows:
        kind = "baseline" if row["arm"] in ("popularity", "item-knn", "vbpr") else "recommender"
        artifact = open_artifact(compared / "arms" / row["arm"] / f"seed-{row['seed']}", kind=kind)
        assert row["test/ndcg@10"] == pytest.approx(artifact.manifest["metrics"]["test/ndcg@10"])
        assert row["peak_mib"] >= 0
    metrics = {row["arm"]: row for row in rows}
    assert metrics["popularity"]["test/mrr"] == pytest.approx(metrics["lora"]["popularity/mrr"])


def test_items_are_read_once_for_all_arms(compared: Path) -> None:
    def vectors(arm: str, kind: str) -> str:
        folder = compared / "arms" / arm / "seed-1"
        return open_artifact(folder, kind=kind).manifest["config"]["vectors"]

    open_artifact(compared / "vectors", kind="vectors")
    assert (
        vectors("lora", "recommender") == vectors("vbpr", "baseline") == str(compared / "vectors")
    )
    assert vectors("scratch", "recommender") == vectors("text only", "recommender") == ""
    assert vectors("id", "recommender") == ""


def test_targets_hold_each_place(compared: Path) -> None:
    table = pq.read_table(compared / "targets.parquet").to_pylist()
    lora = [row["rank"] for row in table if (row["arm"], row["seed"]) == ("lora", 1)]
    expected = np.load(compared / "arms" / "lora" / "seed-1" / "test_ranks.npy")
    assert lora == expected.tolist()


def test_page_and_markdown_show_the_results_of_a_comparison(compared: Path) -> None:
    page = (compared / "report.html").read_text(encoding="utf8")
    words = (compared / "report.md").read_text(encoding="utf8")
    for name in ("popularity", "item-knn", "vbpr", "text only", "scratch", "lora"):
        assert name in page
        assert f"| {name} |" in words
    readings = [line for line in words.splitlines() if line.startswith("- ")]
    assert len(readings) == page.count('class="reading') + 1 == 8, "and how soon"
    assert "with 2 seeds an arm's training noise is known from 1 degree of freedom" in words
    assert "test targets repeat an item of their user's history and are left out" in words
    assert "no interaction of that period is read" in words
    assert readings[0].startswith("- Pretraining (lora) ")


def test_what_is_done_is_not_done_again(
    config: CompareConfig, compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def created() -> dict[str, str]:
        found = (compared / "arms").rglob("manifest.json")
        return {str(path): json.loads(path.read_text())["created"] for path in found}

    before = created()
    more = replace(config, include=f"{config.include},zero-shot")
    run_comparison(more, compared, build_trainer)
    after = created()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2
    assert "[1/14] finetune popularity, seed 0: done earlier" in capsys.readouterr().err


def test_an_arm_that_reads_text_alone_sees_no_image(config: CompareConfig, compared: Path) -> None:
    from catalog.catalog import load_catalog
    from pretrain.artifact import EncoderBundle

    parts = EncoderBundle.load(Path(config.finetune.encoder))
    reader = parts.content_loader(load_catalog(config.finetune.catalog))
    reader.keep_modalities({"text"})
    content = reader.read(np.arange(8))
    assert not content["image"]["present"].any()
    assert content["text"]["present"].any()
    parts.encoder.eval()(content)
    manifest = open_artifact(compared / "arms" / "text only" / "seed-0").manifest
    assert manifest["config"]["modalities"] == "text"


def test_the_planned_contrasts_are_those_the_arms_can_answer() -> None:
    arms = default_arms(["text", "image"])
    asked = planned_contrasts(arms)
    assert len({(ours, other) for _, ours, other in asked}) == len(asked)
    assert ("pretraining (full)", "full", "scratch") in asked
    assert ("modalities beside image", "lora", "image only") in asked
    assert planned_contrasts({"id": ArmConfig(), "popularity": ArmConfig()}) == []
    assert planned_contrasts({"a": ArmConfig(), "b": ArmConfig()}, "a") == [
        ("b rather than a", "b", "a")
    ]


def test_differences_are_called_real_only_after_correction() -> None:
    rng = np.random.default_rng(0)
    users = rng.random(400)
    same = users + 0.1 * rng.normal(size=(3, 400))
    values = {
        "base": users + 0.1 * rng.normal(size=(3, 400)),
        "same": same - same.mean(axis=1, keepdims=True) + users.mean(),
        "better": users + 0.05 + 0.1 * rng.normal(size=(3, 400)),
    }
    better, same = compare_pairs(values, [("better", "base"), ("same", "base")])
    assert (better.verdict, same.verdict) == ("better", "no difference")
    assert better.adjusted == pytest.approx(2 * better.p)
    assert describe_difference(better, "This", values["base"].mean()).startswith(
        "This helped here: NDCG@10 +0.05"
    )
    (worse,) = compare_pairs(values, [("base", "better")])
    assert worse.verdict == "worse"
    assert better.caveat == worse.caveat == ""


def test_training_noise_is_in_the_verdict_or_reported_as_unmeasured() -> None:
    rng = np.random.default_rng(1)
    users = rng.random(2_000)
    ours, theirs = (users * np.array([[0.9], [1.0], [1.1]]) + shift for shift in (0.02, 0.0))
    (found,) = compare_pairs({"a": ours, "b": theirs}, [("a", "b")])
    assert found.verdict == "no difference", "the seeds of one arm differ by more"
    single = {"a": ours[:1], "b": theirs[:1]}
    (alone,) = compare_pairs(single, [("a", "b")])
    assert alone.verdict == "better"
    assert alone.caveat == "training noise of a and b is not measured (one seed)"
    assert describe_difference(alone, "A", 0.5, alone.caveat).endswith(f" Beware: {alone.caveat}.")
    (known,) = compare_pairs(single, [("a", "b")], same_for_every_seed=["b"])
    assert known.caveat == "training noise of a is not measured (one seed)"
    arms = default_arms(["text", "image"])
    assert seed_independent_arms(arms) == {"popularity", "item-knn", "zero-shot"}


def readings(page: str) -> list[list[str]]:
    """Of the table of differences: the cells' texts, row by row."""
    table = page[page.index('aria-label="Differences"') :]
    rows = re.findall(r"<tr>(.*?)</tr>", table[: table.index("</table>")], re.S)[1:]
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows)
    return [[re.sub(r"<[^>]*>", " ", cell).strip() for cell in row] for row in cells]


def shown(differences_: list[Difference], failures: dict[str, str] | None = None) -> Comparison:
    row = ArmRow("lora", "", Interval(0.2, 0.1, 0.3), {"recall@10": 0.5})
    lost = [replace(row, name=name, failed=why) for name, why in (failures or {}).items()]
    return Comparison(
        title="Ways",
        protocol="",
        rows=[row, *lost],
        contrasts=[(f"contrast {n}", found) for n, found in enumerate(differences_)],
        sentences=["said"] * len(differences_),
        failures=[f"{name} failed: {why}" for name, why in (failures or {}).items()],
        convergence=[],
        searches={},
    )


def test_the_page_gives_each_verdict_to_its_own_pair() -> None:
    up, down = Interval(0.05, 0.02, 0.08), Interval(-0.05, -0.08, -0.02)
    found = [
        Difference("lora", "scratch", up, 0.001, 0.002),
        Difference("id", "lora", down, 0.001, 0.002),
        Difference("full", "lora", up, 0.04, 0.12),
        Difference("text only", "id", up, 0.001, 0.002, single=("id",)),
    ]
    rows = readings(comparison_page(shown(found)))
    assert [row[1:3] for row in rows] == [[each.ours, each.theirs] for each in found]
    assert [row[-1] for row in rows] == ["✓ better", "✗ worse", "○ no difference", "○ better"]
    assert [row[3].split()[0] for row in rows] == ["0.0500", "−0.0500", "0.0500", "0.0500"]
    assert [row[5] for row in rows] == ["0.002", "0.002", "0.12", "0.002"]
    assert "training noise of id is not measured (one seed)" in rows[3][0]


def test_invalid_comparisons_are_one_line(config: CompareConfig, tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"no arm 'lra' .* Did you mean 'lora'"):
        chosen_arms(replace(config, include="lra"))
    with pytest.raises(VitrineError, match="seeds is 0; give 1 or more"):
        chosen_arms(replace(config, seeds=0))
    with pytest.raises(VitrineError, match="reference is 'full', which is not among"):
        chosen_arms(replace(config, reference="full"))
    settings = replace(config.finetune, modalities="sound")
    with pytest.raises(
        VitrineError, match="modalities names 'sound', which the encoder does not read"
    ):
        run_finetuning(settings, tmp_path / "x", build_trainer)


def test_without_an_encoder_ids_and_baselines_are_compared(
    demo_world: Path, tmp_path: Path
) -> None:
    config = CompareConfig(
        finetune=FinetuneConfig(
            catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
            width=16,
            sequence=SequenceConfig(layers=1, heads=2, max_history=6),
            data=FinetuneDataConfig(rows=2),
            trainer=TrainerConfig(max_steps=2, progress=False),
        ),
        seeds=1,
        reference="id",
    )
    report = run_comparison(config, tmp_path / "run", build_trainer)
    words = report.with_suffix(".md").read_text(encoding="utf8")
    values = {
        name: metric_values(np.load(tmp_path / "run" / "arms" / name / "seed-0" / "test_ranks.npy"))
        for name in ("id", "bpr-mf", "item-knn", "popularity")
    }
    for name, of_arm in values.items():
        assert f"| {name} | {of_arm['ndcg@10'].mean():.4f} |" in words
    assert "Bpr-mf rather than id" in words


def test_an_arm_that_failed_is_shown_as_failed_and_not_as_beaten(
    demo_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(title: str, arm: ArmConfig, *rest: Any) -> Stage:
        def run() -> Path:
            raise DivergenceError(f"{title} is not finite")

        stage = recommender_stage(title, arm, *rest)
        return replace(stage, run=run) if arm.features == "id" else stage

    monkeypatch.setattr("launch.compare.run.recommender_stage", diverges)
    catalog = CatalogConfig(path=str(demo_world / "wardrobe"))
    config = CompareConfig(
        finetune=FinetuneConfig(catalog=catalog, trainer=TrainerConfig(progress=False)),
        include="popularity,item-knn,id",
        seeds=2,
        reference="popularity",
    )
    report = run_comparison(config, tmp_path / "run", build_trainer)
    words, page = (report.with_suffix(end).read_text(encoding="utf8") for end in (".md", ".html"))
    why = "seed 0: id, seed 0 is not finite"
    assert "| id | failed |" in words
    assert f"- id failed, so nothing beats it: {why}" in words
    assert "✗ failed: </span>" in page
    assert why in page
    rows = pq.read_table(tmp_path / "run" / "arms.parquet").to_pylist()
    assert {row["arm"] for row in rows} == {"popularity", "item-knn"}
    assert [row[1:3] for row in readings(page)] == [["item-knn", "popularity"]]


def test_a_study_of_what_is_missing_compares_every_way(config: CompareConfig) -> None:
    arms = chosen_arms(replace(config, missing="0,30,90", include=""))
    assert len(arms) == 1 + 2 * len(IMPUTATIONS)
    assert arms["pagerank 30%"].settings(config.finetune).missing_modality.percent == 30
    assert arms["whole"].settings(config.finetune).missing_modality.percent == 0
    asked = planned_contrasts(arms)
    assert ("a mask rather than drop 90%", "mask 90%", "drop 90%") in asked
    assert ("30 % missing", "mask 30%", "whole") in asked
    for wrong in ("some", "30,,60", "100", "-1"):
        with pytest.raises(VitrineError, match="give percents from 0 to below 100"):
            chosen_arms(replace(config, missing=wrong))


def test_convergence_counts_the_steps_to_the_final_value_of_scratch(tmp_path: Path) -> None:
    def run(name: str, seed: int, *values: float) -> Path:
        folder = tmp_path / name / str(seed)
        folder.mkdir(parents=True)
        curve = [[50 * (place + 1), value] for place, value in enumerate(values)]
        (folder / "curves.json").write_text(json.dumps({CURVE: curve}))
        return folder

    folders = {
        "scratch": [run("scratch", 0, 0.1, 0.3, 0.2), run("scratch", 1, 0.1, 0.2, 0.2)],
        "frozen": [run("frozen", 0, 0.1, 0.2, 0.1), run("frozen", 1, 0.2, 0.1, 0.1)],
        "lora": [run("lora", 0, 0.3, 0.3, 0.3), run("lora", 1, 0.1, 0.1, 0.19)],
        "full": [run("full", 0, 0.1, 0.1, 0.19), run("full", 1, 0.1, 0.1, 0.1)],
    }
    arms = default_arms(["text"])
    assert steps_to_scratch(folders["frozen"], folders["scratch"]) == ([100, 50], 150)
    assert steps_to_scratch(folders["lora"], folders["scratch"]) == ([50, None], 150)
    assert convergence_sentences({name: arms[name] for name in folders}, folders) == [
        f"Pretraining (frozen) is at {LEVEL} after 75 of 150 steps.",
        f"Pretraining (lora) does not come to {LEVEL} within 150 steps in 1 of 2 runs.",
        f"Pretraining (full) does not come to {LEVEL} within 150 steps.",
    ]
    assert convergence_sentences({"lora": arms["lora"]}, folders) == []
    (tmp_path / "lora" / "0" / "curves.json").unlink()
    assert steps_to_scratch(folders["lora"], folders["scratch"]) == ([], 0)
