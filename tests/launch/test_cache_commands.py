"""`vitrine cache list` and `vitrine cache prune`."""

import os
import time
from pathlib import Path

import pytest

from launch.cli import main

DAY = 86_400


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("VITRINE_CACHE", str(cache))
    for name, days_ago in (("media/old", 30), ("media/new", 1), ("catalogs/used", 0)):
        (cache / name).mkdir(parents=True)
        (cache / name / "values").write_bytes(bytes(40_000))
        os.utime(cache / name, (time.time() - days_ago * DAY,) * 2)
    return cache


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max_size", "a lot"], "--max_size is 'a lot', which is no size"),
        (["--older_than", "3 moons"], "--older_than is '3 moons', which is no age"),
        (["--kind", "medium"], "Did you mean 'media'"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert main(["cache", "prune", *arguments]) == 2
    output = capsys.readouterr().err
    assert line in output
    assert output.count("\n") == 1


def test_the_commands_list_and_prune(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def left() -> list[str]:
        return sorted(path.name for path in filled.glob("*/*"))

    assert main(["cache", "list"]) == 0
    listed = capsys.readouterr().out
    assert "media: decoded images, audio and video, 2 entries" in listed
    assert "used   30 d   ago  old" in listed
    assert main(["cache", "list", "--json"]) == 0
    assert capsys.readouterr().out.count('"kind"') == 3
    assert main(["cache", "prune", "--older_than", "20d", "--dry_run"]) == 0
    assert "1 entries" in capsys.readouterr().out
    assert left() == ["new", "old", "used"]
    assert main(["cache", "prune", "--older_than", "20d"]) == 0
    assert left() == ["new", "used"]
