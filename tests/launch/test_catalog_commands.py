"""`vitrine catalog …` as a user meets it."""

from pathlib import Path

import pytest

from launch.cli import main

LOG = "user_id,item_id,date\nu,i0,1.2.2020\nu,i1,2.2.2020\nv,i0,3.2.2020\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text("item_id;title\ni0;Mug\ni1;Pot\n")
    (tmp_path / "interactions.csv").write_text(LOG)
    return tmp_path


def test_a_remedy_names_an_option_that_the_command_takes(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", "check", str(shop)]) == 0
    said = capsys.readouterr().out
    assert "set --delimiter" in said
    assert "--catalog." not in said
    assert main(["catalog", "check", str(shop), "--dates", "month-first"]) == 0
    assert "set --dates" not in capsys.readouterr().out
    (shop / "interactions.csv").write_text(LOG.replace("3.2.2020", "31.2.2020x"))
    assert main(["catalog", "check", str(shop)]) == 2
    assert "--catalog." not in capsys.readouterr().err


def test_an_import_names_its_own_options(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "imported"
    assert main(["catalog", "import", "folder", str(shop), "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert "set --delimiter" in said
    assert "--catalog." not in said


def test_sources_are_listed_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "sources"]) == 0
    listed = capsys.readouterr().out
    assert "vitrine catalog check dataset/ml-1m --source recbole" in listed
