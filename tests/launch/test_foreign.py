"""Invalid files of other origin: one line, exit code 2, in `launch plan` as well."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.cli import main
from tests.checkpoints import image_checkpoint, text_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`text`, `image` and `shop`, all sound."""
    folder = tmp_path_factory.mktemp("made")
    text_checkpoint(folder / "text")
    image_checkpoint(folder / "image")
    shop = folder / "shop"
    shop.mkdir()
    for n in range(4):
        Image.new("RGB", (8, 8), (40 * n, 90, 120)).save(shop / f"i{n}.png")
    items = [{"item_id": f"i{n}", "title": f"Item {n}", "image": f"i{n}.png"} for n in range(4)]
    (shop / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    rows = ["user_id\titem_id\ttimestamp"]
    rows += [f"u{u}\ti{(u + n) % 4}\t{n}" for u in range(3) for n in range(4)]
    (shop / "interactions.tsv").write_text("\n".join(rows))
    return folder


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)

    return write


def changed(name: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | values))

    return change


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


OWN_CODE = {
    "auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Model"},
    "model_type": "mine",
}
PROCESSOR, CONFIG, WEIGHTS = "preprocessor_config.json", "config.json", "model.safetensors"
FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("text", without_tokenizer, "token"),
    ("text", written("tokenizer.json", "{"), "the tokenizer of"),
    ("text", without(CONFIG), "the config of"),
    ("text", written(CONFIG, "{"), "the config of"),
    ("text", written(CONFIG, "[]"), "the config of"),
    ("text", changed(CONFIG, model_type="nonsense"), "nonsense"),
    (
        "text",
        changed(CONFIG, **OWN_CODE),
        "it comes with code of its own, which Vitrine does not run",
    ),
    ("text", changed(CONFIG, vocab_size=9), "the tokenizer of"),
    ("image", without(PROCESSOR), "the preprocessor_config.json of"),
    ("image", written(PROCESSOR, "{"), "the preprocessor_config.json of"),
    ("image", changed(PROCESSOR, image_mean=[0.5]), "image_mean [0.5]; it takes three numbers"),
    ("image", changed(PROCESSOR, image_mean="grey"), "image_mean 'grey'; it takes three numbers"),
    ("image", changed(PROCESSOR, image_std=[0.2, 0.2, 0]), "image_std"),
    ("image", changed(PROCESSOR, image_mean=None), "image_mean None"),
]
"""Which checkpoint, what is wrong with it, and what the line says."""
OF_WEIGHTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("text", without(WEIGHTS), "the model "),
    ("text", written(WEIGHTS, "{"), "the model "),
    ("text", changed(CONFIG, num_hidden_layers=2), "lacks 16 of the weights of a BertModel"),
    ("text", changed(CONFIG, hidden_size=32), "the model "),
    ("text", changed(CONFIG, num_attention_heads=3), "no bert can be built from its config"),
    ("text", changed(CONFIG, max_position_embeddings=40), "the model "),
]
"""Those that a plan, which loads no weights, does not see."""


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message: a stage's one line, or one of a plan's problems."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("vitrine: ")]
    assert len(lines) == 1
    return lines[0] + captured.out


def arguments(made: Path, kind: str, model: Path, output: Path) -> list[object]:
    other = {"text": "image", "image": "text"}[kind]
    given = ["--catalog.path", made / "shop", f"--encoder.{kind}.model", model]
    return [*given, f"--encoder.{other}", "null", "--trainer.max_steps", 0, "--output", output]


def damaged(made: Path, tmp_path: Path, kind: str, fault: Callable[[Path], None]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(made / kind, folder)
    fault(folder)
    return folder


@pytest.mark.parametrize("number", range(len(FAULTS)))
@pytest.mark.parametrize("command", [["pretrain"], ["launch", "plan", "pretrain"]])
def test_a_checkpoint_that_is_not_as_it_should_be_is_one_line(
    number: int,
    command: list[str],
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, fault, message = FAULTS[number]
    folder = damaged(made, tmp_path, kind, fault)
    line = mistake(capsys, *command, *arguments(made, kind, folder, tmp_path / "out"))
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", range(len(OF_WEIGHTS)))
def test_weights_that_are_not_as_they_should_be_are_one_line(
    number: int, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, fault, message = OF_WEIGHTS[number]
    folder = damaged(made, tmp_path, kind, fault)
    line = mistake(capsys, "pretrain", *arguments(made, kind, folder, tmp_path / "out"))
    assert message in line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--encoder.text.model", "{made}/image"], "the tokenizer of"),
        (["--encoder.image.model", "{made}/text"], "the preprocessor_config.json of"),
        (["--encoder.text.model", "nobody/nothing"], "nobody/nothing' cannot be loaded"),
        (["--encoder.text.model", "../no where"], "../no where' cannot be loaded"),
        (
            ["--encoder.text.max_tokens", "65", "--encoder.text.model", "{made}/text"],
            "use 64 or fewer",
        ),
        (["--encoder.text.max_tokens", "600"], "max_tokens is 600, but the tower (bert) has 128"),
        (["--encoder.text.config", "{{model_type: vit}}"], "vit reads pixel_values"),
        (["--encoder.image.config", "{{model_type: bert}}"], "bert reads input_ids"),
        (["--encoder.text.config", "{{model_type: nonsense}}"], "model_type 'nonsense'"),
        (
            ["--encoder.text.config", "{{hidden_size: 8}}"],
            "needs `model` (a Hugging Face name or folder)",
        ),
        (["--encoder.text.config.hidden_size", "wide"], "model_type 'bert'"),
        (["--encoder.image.image_size", "4"], "image_size is 4, less than a patch of 8"),
        (["--encoder.sequence.model", "nobody/nothing"], "nobody/nothing' cannot be loaded"),
        (["--encoder.sequence.decoder", "{{model_type: nonsense}}"], "model_type 'nonsense'"),
    ],
)
@pytest.mark.parametrize("command", [["pretrain"], ["launch", "plan", "pretrain"]])
def test_a_model_that_cannot_be_the_tower_is_one_line(
    given: list[str],
    message: str,
    command: list[str],
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [word.format(made=made) for word in given]
    shop = ["--catalog.path", made / "shop", "--trainer.max_steps", 0]
    assert message in mistake(capsys, *command, *shop, *arguments, "--output", tmp_path / "out")


def test_heads_that_do_not_divide_the_width_are_one_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = ["--catalog.path", made / "shop", "--output", tmp_path / "out"]
    line = mistake(capsys, "pretrain", *shop, "--encoder.text.config.num_attention_heads", 3)
    assert "no bert can be built from its config" in line


def test_sound_checkpoints_are_read(made: Path, tmp_path: Path) -> None:
    given = [
        "--catalog.path",
        made / "shop",
        "--trainer.max_steps",
        0,
        "--output",
        tmp_path / "out",
    ]
    towers = ["--encoder.text.model", made / "text", "--encoder.image.model", made / "image"]
    assert main([str(word) for word in ("pretrain", *given, *towers)]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["modalities"][1]["mean"] == [0.4, 0.5, 0.6]


def vectors_folder(folder: Path) -> None:
    (folder / "vectors").mkdir()
    (folder / "vectors" / "item_vectors.safetensors").write_bytes(b"{")
    (folder / "vectors" / "item_ids.parquet").write_bytes(b"PAR1")


def ids_in_latin(folder: Path) -> None:
    np.save(folder / "v.npy", np.zeros((4, 2), dtype=np.float32))
    (folder / "v.ids.txt").write_bytes("é".encode("latin-1"))


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("vectors", vectors_folder),
        ("v.npy", ids_in_latin),
        ("v.npy", written("v.npy", "{")),
        ("v.parquet", written("v.parquet", "PAR1")),
        ("v.safetensors", written("v.safetensors", "{")),
    ],
)
def test_vectors_that_cannot_be_read_are_one_line(
    source: str,
    write: Callable[[Path], None],
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(made / "shop", shop)
    write(shop)
    given = ["--catalog.path", shop, "--encoder.extra_modalities.v.kind", "features"]
    given += ["--encoder.extra_modalities.v.source", source, "--output", tmp_path / "out"]
    assert str(shop / source.partition(".")[0]) in mistake(capsys, "pretrain", *given)


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("domains.json", b"{", "domains list --store {folder}", "is no list of domains"),
        ("domains.json", b'{"x": 1}', "domains list --store {folder}", "is no list of domains"),
        ("mine.yaml", b"\xff", "pretrain --config {folder}/mine.yaml", "is not UTF-8"),
        ("sweep.txt", b"\xff", "launch pretrain --array {folder}/sweep.txt", "cannot be read"),
        ("sweep.txt", b"--a 'b", "launch pretrain --array {folder}/sweep.txt", "cannot be read"),
        ("picture.png", b"\x89PNG\r\n", "verify {folder}/picture.png", "holds no signature"),
        ("manifest.json", b"{", "recommend {folder} --user u0", "manifest.json"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_one_line(
    name: str,
    content: bytes,
    line: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in mistake(capsys, *line.format(folder=tmp_path).split())
