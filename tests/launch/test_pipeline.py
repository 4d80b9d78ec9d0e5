"""A pipeline loses at most the stage in progress, however it is stopped, and redoes what changed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from generate.forget import forget
from generate.pseudonyms import opaque_id
from launch.pipeline import PipelineConfig
from launch.report.gather import write_report
from launch.settings import load_settings

CONFIG = Path(__file__).with_name("tiny.yaml")


def start(output: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "launch.cli", "run", str(CONFIG), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["VITRINE_CACHE"] = str(output.parent / "cache")
    return subprocess.Popen(
        [*command, *overrides],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(output: Path, *overrides: str) -> list[str]:
    """Runs to the end; returns the names of the stages that ran, not those done earlier."""
    process = start(output, *overrides)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]
    lines = [line for line in errors.splitlines() if line.startswith("[")]
    return [line.split("] ")[1].split(":")[0] for line in lines if "done earlier" not in line]


def manifests(output: Path) -> dict[str, str]:
    return {
        str(path.parent.relative_to(output)): json.loads(path.read_text())["created"]
        for path in output.rglob("manifest.json")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pipeline") / "run"
    assert len(finish(output)) == 7
    return output


def test_the_page_shows_people_and_what_was_made_for_them(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf8")
    people = json.loads((finished / "showcase" / "showcase.json").read_text())["people"]
    assert len(people) == 2
    for person in people:
        assert person["user"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/png") > 10


def test_run_again_it_does_nothing_again(finished: Path) -> None:
    before = manifests(finished)
    assert finish(finished) == []
    assert manifests(finished) == before


def test_a_changed_setting_redoes_its_stage_and_what_hangs_on_it(finished: Path) -> None:
    ran = finish(finished, "--text.trainer.max_steps", "3")
    assert ran == ["words", "showcase"]


@pytest.mark.fault
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_anywhere_it_loses_at_most_the_stage_in_progress(
    how: signal.Signals, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    rng = random.Random(int(how))
    for _ in range(2):
        process = start(output)
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
    finish(output)
    done = manifests(output)
    assert kept.items() <= done.items()
    assert (output / "report.html").exists()
    assert not list(output.rglob(".*partial*"))


def test_who_is_forgotten_is_on_no_page_and_the_page_is_made_again_without(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last in this file: it changes what the tests above look at."""
    monkeypatch.setenv("VITRINE_CACHE", str(finished.parent / "cache"))
    story = json.loads((finished / "showcase" / "showcase.json").read_text())["people"][0]
    users = load_catalog(CatalogConfig(path=str(finished / "world" / "wardrobe"))).user_ids.tolist()
    (gone,) = [user for user in users if opaque_id(user) == story["user"]]
    done = forget(gone, finished)
    assert finished / "report.html" in done.files
    assert finished / "showcase" / "showcase.json" in done.rows
    assert {path.relative_to(finished).parts[0] for path in done.left} == {"world"}
    page = write_report(load_settings(PipelineConfig, CONFIG, []), finished, {}).read_text()
    assert story["user"] not in page
    assert page.count('class="person"') == 1
