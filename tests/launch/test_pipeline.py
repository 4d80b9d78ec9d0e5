"""A pipeline loses at most the stage in progress, however it is stopped, and redoes what changed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.artifacts import write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.config import ArmConfig
from generate.forget import forget
from generate.pseudonyms import pseudonymize
from launch.pipeline.config import PipelineConfig
from launch.pipeline.report import write_report
from launch.pipeline.run import run_stages
from launch.pipeline.stage import Stage
from launch.settings import load_settings
from pretrain.config import PretrainConfig, PretrainDataConfig, TrainerConfig
from pretrain.request import result_request

CONFIG = Path(__file__).with_name("tiny.yaml")
MORE_ARMS = {
    "chosen": {"features": "auto", "description": "with or without ids"},
    "neighbours": {"model": "item-knn", "description": "a baseline"},
}


def start(output: Path, *overrides: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """`output` may be relative to `cwd`; a config beside it takes the place of the tiny one."""
    sibling = (cwd or Path()) / output.parent / "config.yaml"
    config = sibling.resolve() if sibling.exists() else CONFIG
    command = [sys.executable, "-m", "launch.cli", "run", str(config), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["VITRINE_CACHE"] = str(sibling.resolve().parent / "cache")
    return subprocess.Popen(
        [*command, *overrides],
        cwd=cwd,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def status_of(output: Path, *overrides: str, cwd: Path | None = None) -> str:
    """Runs to the end; returns what it printed on standard error."""
    process = start(output, *overrides, cwd=cwd)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]
    return errors


def finish(output: Path, *overrides: str, cwd: Path | None = None) -> list[str]:
    """Runs to the end; returns the names of the stages that ran, not those done earlier."""
    errors = status_of(output, *overrides, cwd=cwd)
    lines = [line for line in errors.splitlines() if line.startswith("[")]
    return [line.split("] ")[1].split(":")[0] for line in lines if "done earlier" not in line]


ROWS = ["a,1,1", "a,2,2", "b,2,1", "b,1,2"]


def shop(folder: Path, rows: list[str] = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "items.csv").write_text("item_id,title\n1,red shoe\n2,blue hat\n")
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,time", *rows]) + "\n")
    return folder


def encoder(folder: Path, config: PretrainConfig) -> Path:
    """An artifact such as a pretraining with these settings would leave."""
    fingerprint = load_catalog(config.catalog).fingerprint
    request = result_request("encoder", asdict(config), catalog=fingerprint)
    fields: dict[str, Any] = {"config": asdict(config), "catalog": fingerprint, "request": request}
    with write_artifact(folder, kind="encoder", **fields) as staging:
        (staging / "weights").write_text("1")
    return folder


def is_done(folder: Path, config: PretrainConfig, **parents: Path) -> bool:
    return Stage("pretrain", folder, "encoder", asdict(config), parents, lambda: None).is_done()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    return PretrainConfig(
        catalog=CatalogConfig(path=str(shop(tmp_path / "shop"))), data=PretrainDataConfig(rows=8)
    )


def test_a_stage_is_done_for_one_catalog(settings: PretrainConfig, tmp_path: Path) -> None:
    """What it holds counts, and not where it lies."""
    made = encoder(tmp_path / "encoder", settings)
    assert is_done(made, settings)
    elsewhere = str(shop(tmp_path / "elsewhere"))
    assert is_done(made, replace(settings, catalog=CatalogConfig(path=elsewhere)))
    shop(tmp_path / "shop", [*ROWS, "c,1,3"])
    assert not is_done(made, settings)


def test_a_stage_is_done_for_what_it_learned_and_not_for_how_it_ran(
    settings: PretrainConfig, tmp_path: Path
) -> None:
    made = encoder(tmp_path / "encoder", settings)
    ways = TrainerConfig(log_every=7, checkpoint_every=9, progress=False)
    shared = TrainerConfig(devices=4, strategy="zero2")
    assert is_done(made, replace(settings, trainer=ways))
    assert is_done(made, replace(settings, trainer=shared, data=PretrainDataConfig(rows=2)))
    for other in (
        replace(settings, trainer=TrainerConfig(max_steps=3)),
        replace(settings, trainer=TrainerConfig(seed=1)),
        replace(settings, trainer=shared),
        replace(settings, data=PretrainDataConfig(rows=2)),
        replace(settings, catalog=replace(settings.catalog, min_rating=1.0)),
    ):
        assert not is_done(made, other)


def test_a_stage_is_done_for_the_parents_that_are_there(
    settings: PretrainConfig, tmp_path: Path
) -> None:
    parent = encoder(tmp_path / "parent", settings)
    made, fingerprint = tmp_path / "made", load_catalog(settings.catalog).fingerprint
    parents = {"encoder": parent}
    request = result_request("encoder", asdict(settings), parents, fingerprint)
    fields: dict[str, Any] = {"parents": parents, "catalog": fingerprint, "request": request}
    with write_artifact(made, kind="encoder", **fields) as staging:
        (staging / "weights").write_text("2")
    assert is_done(made, settings, encoder=parent)
    assert not is_done(made, settings)
    with write_artifact(parent, kind="encoder") as staging:
        (staging / "weights").write_text("another")
    assert not is_done(made, settings, encoder=parent)


def test_a_headline_arm_without_embeddings_is_refused_at_once(tmp_path: Path) -> None:
    arms = {"lora": ArmConfig(), "popular": ArmConfig(model="popularity")}
    with pytest.raises(VitrineError, match="headline 'popular' is a baseline arm"):
        run_stages(PipelineConfig(arms=arms, headline="popular"), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def manifests(output: Path) -> dict[str, str]:
    return {
        str(path.parent.relative_to(output)): json.loads(path.read_text())["created"]
        for path in output.rglob("manifest.json")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an arm whose features are chosen, and a baseline."""
    output = tmp_path_factory.mktemp("pipeline") / "run"
    settings = yaml.safe_load(CONFIG.read_text())
    settings["arms"] |= MORE_ARMS
    (output.parent / "config.yaml").write_text(yaml.safe_dump(settings))
    assert len(finish(output)) == 9
    return output


def test_the_page_shows_users_and_what_was_generated_for_them(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf8")
    people = json.loads((finished / "showcase" / "showcase.json").read_text())["users"]
    assert len(people) == 2
    for person in people:
        assert person["user"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/png") > 10


def test_run_again_it_does_nothing_again(finished: Path) -> None:
    """Also where the same folder is named otherwise, or more is logged."""
    before = manifests(finished)
    assert finish(finished) == []
    logged = [f"--{name}.trainer.log_every=3" for name in ("pretrain", "finetune", "text", "image")]
    relative = Path(finished.parent.name) / finished.name
    assert finish(relative, *logged, cwd=finished.parents[1]) == []
    assert manifests(finished) == before


def test_the_page_and_the_command_end_with_the_time_of_each_stage(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf8")
    assert "Preliminary" not in page
    assert "The run took" in page
    errors = status_of(finished)
    assert "First page" not in errors
    table = errors[errors.index("stage ") :].splitlines()
    assert {"world", "pretrain", "finetune lora", "image", "whole run"} <= {
        line.split("  ")[0] for line in table
    }


@pytest.mark.slow
def test_two_stages_at_a_time_make_the_same_artifacts(finished: Path, tmp_path: Path) -> None:
    errors = status_of(tmp_path / "run", "--parallel_stages", "2")
    assert "2 at a time" in errors
    assert errors.index("First page") < errors.index("] finetune lora")
    made = {name for name in manifests(finished) if Path(name).name not in MORE_ARMS}
    assert set(manifests(tmp_path / "run")) == made
    assert finish(tmp_path / "run") == []


def test_a_stage_that_fails_ends_those_beside_it(tmp_path: Path) -> None:
    """In one line, as where it runs alone."""
    process = start(
        tmp_path / "run", "--parallel_stages", "2", "--pretrain.split.min_history", "-1"
    )
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "Traceback" not in errors


def test_the_page_has_a_row_for_a_baseline_and_no_curve(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf8")
    assert "neighbours" in page
    assert not (finished / "recommenders" / "neighbours" / "curves.json").exists()


def test_a_changed_setting_redoes_its_stage_and_what_hangs_on_it(finished: Path) -> None:
    ran = finish(finished, "--text.trainer.max_steps", "3")
    assert ran == ["text", "showcase"]


@pytest.mark.fault
@pytest.mark.parametrize("parallel", ["1", "2"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_anywhere_it_loses_at_most_the_stages_in_progress(
    how: signal.Signals, parallel: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    rng = random.Random(int(how))
    for _ in range(2):
        process = start(output, "--parallel_stages", parallel)
        time.sleep(rng.uniform(8, 25))
        before = manifests(output)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        if how == signal.SIGINT:
            # Over already, told to stop, or caught while the finished interpreter was shutting down.
            finished = "Report:" in errors
            expected = (0, -signal.SIGINT) if finished else (130,)
            assert process.returncode in expected, errors[-2000:]
            assert "Traceback" not in errors
        kept = manifests(output)
        assert before.items() <= kept.items()
    finish(output, "--parallel_stages", parallel)
    done = manifests(output)
    assert kept.items() <= done.items()
    assert (output / "report.html").exists()
    assert not list(output.rglob(".*partial*"))


def test_an_erased_user_is_on_no_page_and_the_page_is_rewritten_without(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last in this file: it changes what the tests above look at."""
    monkeypatch.setenv("VITRINE_CACHE", str(finished.parent / "cache"))
    story = json.loads((finished / "showcase" / "showcase.json").read_text())["users"][0]
    users = load_catalog(CatalogConfig(path=str(finished / "world" / "wardrobe"))).user_ids.tolist()
    (gone,) = [user for user in users if pseudonymize(user) == story["user"]]
    done = forget(gone, finished)
    assert finished / "report.html" in done.files
    assert finished / "showcase" / "showcase.json" in done.rows
    assert {path.relative_to(finished).parts[0] for path in done.mentions} == {"world"}
    page = write_report(load_settings(PipelineConfig, CONFIG, []), finished, {}).read_text()
    assert story["user"] not in page
    assert page.count('class="user"') == 1
