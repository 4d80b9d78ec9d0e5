"""What comes from others is data: nothing in it is run, whatever a file is called."""

import ast
import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.interaction_sketch import SKETCH_FILE, InteractionSketch
from finetune.manifest import train_counts
from launch.checkpoints import StateFile
from pretrain.artifact import new_encoder
from pretrain.config import EncoderConfig, ModalityConfig, TowerConfig
from pretrain.vector_file import open_vectors

ROOMS = ("catalog", "pretrain", "finetune", "generate", "launch")
ROOT = Path(__file__).parents[1]
RUN_WHAT_THEY_READ = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def test_the_evil_is_one(mark: Path) -> None:
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()


def as_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Evil(mark)))


def as_torch(path: Path, mark: Path) -> None:
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "evil": Evil(mark)}, path)


def as_old_torch(path: Path, mark: Path) -> None:
    torch.save({"evil": Evil(mark)}, path, _use_new_zipfile_serialization=False)


def as_array(path: Path, mark: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(mark)], dtype=object), allow_pickle=True)


def as_archive(path: Path, mark: Path) -> None:
    as_array(path.with_name("inside"), mark)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_name("inside"), "values.npy")


WRITERS = [as_pickle, as_torch, as_old_torch, as_array, as_archive]
EXTENSIONS = ["pt", "ckpt", "npy", "npz", "tar", "pkl", "safetensors", "bin", "parquet"]


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("write", WRITERS)
def test_no_file_runs_when_it_is_read(
    write: Callable[[Path, Path], None], extension: str, mark: Path, tmp_path: Path
) -> None:
    """Whatever a reader of ours is handed, under whatever name."""
    path = tmp_path / f"file.{extension}"
    write(path, mark)
    named = {name: tmp_path / name for name in ("train_counts.npy", SKETCH_FILE)}
    for other in named.values():
        other.write_bytes(path.read_bytes())
    for read in (
        lambda: StateFile().load_checkpoint(path),
        lambda: open_vectors(path),
        lambda: train_counts(tmp_path),
        lambda: InteractionSketch.load(tmp_path),
    ):
        with contextlib.suppress(Exception):  # an archive of arrays is opened, and read by nobody
            read()
    assert not mark.exists()


@pytest.mark.parametrize("extension", ["npy", "safetensors", "parquet"])
@pytest.mark.parametrize("write", WRITERS)
def test_vectors_in_a_catalog_run_nothing(
    write: Callable[[Path, Path], None], extension: str, mark: Path, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "items.jsonl").write_text("".join(f'{{"item_id": "{n}"}}\n' for n in range(3)))
    (shop / "interactions.jsonl").write_text(
        "".join(f'{{"user_id": "u", "item_id": "{n}", "position": {n}}}\n' for n in range(3))
    )
    write(shop / f"clip.{extension}", mark)
    (shop / "clip.ids.txt").write_text("0\n1\n2\n")
    more = {"clip": ModalityConfig(kind="features", source=f"clip.{extension}")}
    settings = EncoderConfig(text=None, image=None, extra_modalities=more)
    catalog = load_catalog(CatalogConfig(path=str(shop)))
    with pytest.raises(VitrineError):
        new_encoder(settings, catalog).content_loader(catalog).read(np.arange(3))
    assert not mark.exists()


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    """A text tower as it lies in a folder, or on the Hub."""
    from pretrain.tokenizer import train_tokenizer

    folder = tmp_path / "tower"
    tokenizer = train_tokenizer(["red shoe", "blue shoe", "a hat"], 300)
    tokenizer.save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(tokenizer), intermediate_size=32, **SMALL)).save_pretrained(
        folder
    )
    return folder


def build(tower: Path, demo_world: Path) -> None:
    settings = EncoderConfig(width=8, text=TowerConfig(model=str(tower)), image=None)
    settings = replace(settings, sequence=replace(settings.sequence, heads=2))
    new_encoder(settings, load_catalog(CatalogConfig(path=str(demo_world / "home"))))


def test_a_towers_code_is_not_run(tower: Path, mark: Path, demo_world: Path) -> None:
    (tower / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((tower / name).read_text())
        content["auto_map"] = dict.fromkeys(
            ("AutoConfig", "AutoModel", "AutoTokenizer"), "evil.Evil"
        ) | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        content["trust_remote_code"] = True
        (tower / name).write_text(json.dumps(content))
    with contextlib.suppress(ValueError):  # refused, or read as what the file says it is besides
        build(tower, demo_world)
    assert not mark.exists()


@pytest.mark.parametrize("write", [as_pickle, as_torch, as_old_torch])
def test_a_towers_pickled_weights_are_not_run(
    write: Callable[[Path, Path], None], tower: Path, mark: Path, demo_world: Path
) -> None:
    (tower / "model.safetensors").unlink()
    write(tower / "pytorch_model.bin", mark)
    with pytest.raises(Exception):  # noqa: B017, PT011
        build(tower, demo_world)
    assert not mark.exists()


def sources() -> Iterator[tuple[str, ast.AST]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def banned(tree: ast.AST) -> list[str]:
    """What in a module could run what it reads."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = {module or ""} | {alias.name for alias in node.names if module is None}
            found += [f"import of {n}" for n in names if n.split(".")[0] in RUN_WHAT_THEY_READ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if called == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load of more than weights")
        if given.get("allow_pickle") == "True" or given.get("weights_only") == "False":
            found.append(f"{called} of pickles")
        if given.get("trust_remote_code", "False") != "False":
            found.append(f"{called} of others' code")
        if called in ("eval", "exec", "yaml.load", "yaml.unsafe_load"):
            found.append(called)
    return found


def test_no_module_of_ours_could_run_what_it_reads() -> None:
    found = {name: what for name, tree in sources() if (what := banned(tree))}
    assert not found, "without exemption"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "yaml.load(text)",
        "eval(text)",
    ],
)
def test_the_ban_sees_what_it_bans(line: str) -> None:
    assert banned(ast.parse(line))
