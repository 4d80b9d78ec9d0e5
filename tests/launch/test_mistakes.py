"""A user's first mistakes: one clear line, exit code 2, no traceback, nothing left behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.artifacts import write_artifact
from launch.cli import main


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    items = [{"item_id": f"i{n}", "title": f"Item {n}", "image": f"i{n}.png"} for n in range(4)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    for item in items:
        (folder / item["image"]).touch()
    rows = ["user_id\titem_id\ttimestamp", *(f"u{n % 2}\ti{n}\t{n}" for n in range(4))]
    (folder / "interactions.tsv").write_text("\n".join(rows))
    return folder


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs the command in this process; returns its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("vitrine: ")
    return lines[0]


def pretrain(shop: Path) -> list[object]:
    output = shop.parent / "out"
    return ["pretrain", "--catalog.path", shop, "--trainer.max_steps", 1, "--output", output]


def test_a_folder_that_is_not_there(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = mistake(capsys, *pretrain(shop / "nowhere"))
    assert str(shop / "nowhere") in line


def test_no_interactions(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n")
    assert "interactions" in mistake(capsys, *pretrain(shop))


def test_interactions_with_unknown_items_are_counted_and_named(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (shop / "interactions.tsv").open("a") as file:
        file.write("".join(f"\nu0\tghost{n}\t9" for n in range(5)))
    line = mistake(capsys, *pretrain(shop))
    assert "5" in line
    for ghost in ("ghost0", "ghost1", "ghost2"):
        assert ghost in line
    assert "ghost3" not in line
    assert "unknown_items" in line


def test_an_image_outside_the_folder(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.parent / "secret.png").write_bytes(b"x")
    text = (shop / "items.jsonl").read_text().replace("i2.png", "../secret.png")
    (shop / "items.jsonl").write_text(text)
    line = mistake(capsys, *pretrain(shop))
    assert "i2" in line
    assert "secret.png" in line


def test_an_unknown_key_on_the_command_line_and_in_a_file(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = mistake(capsys, *pretrain(shop), "--trainer.max_stepz", 3)
    assert "max_stepz" in line
    assert "trainer.max_steps" in line
    config = shop.parent / "mine.yaml"
    config.write_text("trainer: {max_stepz: 3}\n")
    line = mistake(capsys, *pretrain(shop), "--config", config)
    assert "mine.yaml" in line
    assert "trainer.max_steps" in line


def test_a_flipped_byte(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shop.parent / "encoder"
    with write_artifact(run, kind="encoder", config={}) as staging:
        (staging.path / "model.safetensors").write_bytes(bytes(1000))
    content = bytearray((run / "model.safetensors").read_bytes())
    content[500] ^= 1
    (run / "model.safetensors").write_bytes(content)
    line = mistake(capsys, "embed", "--encoder", run, "--catalog.path", shop)
    assert "model.safetensors" in line


def test_an_adapter_on_the_wrong_base(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, run = shop.parent / "encoder", shop.parent / "recommender"
    with write_artifact(base, kind="encoder", config={}) as staging:
        (staging.path / "model.safetensors").write_bytes(b"first")
    config = {
        "catalog": {"path": str(shop)},
        "split": {},
        "transfer": "lora",
        "features": "content",
    }
    with write_artifact(
        run, kind="recommender", config=config, parents={"encoder": base}
    ) as staging:
        (staging.path / "adapter.safetensors").write_bytes(b"adapter")
    shutil.rmtree(base)
    with write_artifact(base, kind="encoder", config={}) as staging:
        (staging.path / "model.safetensors").write_bytes(b"second")
    line = mistake(capsys, "recommend", run, "--user", "u0")
    assert "trained on" in line or "made from" in line


def test_no_traceback_from_the_installed_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", "pretrain", "--catalog.path", tmp_path / "nowhere"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "nowhere" in done.stderr


def test_compiled_layers_are_refused_where_weights_are_gathered(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--data.compile", "true", "--trainer.strategy", "zero3", "--encoder.image", "null"]
    assert "use --data.compile false or another --trainer.strategy" in mistake(
        capsys, *pretrain(shop), *asked
    )
