"""Fixtures of text generation: a tiny catalog in memory, and a shop on disk for the whole stage."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import Split, make_split
from generate.text.config import TextConfig
from generate.text.language_model import build_language_model
from generate.text.model import TextGenerator
from pretrain.config import TrainerConfig
from tests.generate.text_stage import TEXTS, TINY_GPT2, StageRanker
from tests.generate.tiny_text import TinyRanker, fit, make_generator, tiny_catalog


@pytest.fixture(scope="session")
def text_catalog() -> Catalog:
    return tiny_catalog()


@pytest.fixture(scope="session")
def text_split(text_catalog: Catalog) -> Split:
    return make_split(text_catalog, SplitConfig(kind="leave-one-out"))


@pytest.fixture(scope="session")
def text_ranker() -> TinyRanker:
    return TinyRanker(12)


@pytest.fixture(scope="session")
def trained(text_catalog: Catalog, text_split: Split, text_ranker: TinyRanker) -> TextGenerator:
    """A generator that has learned which users write which text."""
    generator = make_generator()
    fit(generator, text_catalog, text_split, text_ranker, 120)
    return generator


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose more to handing work over than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def text_base(tmp_path: Path) -> Path:
    model, tokenizer = build_language_model(TINY_GPT2, TEXTS, vocab_size=300)
    model.save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def text_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextConfig:
    """Six users, twelve items and an untrained recommender."""
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shop"
    folder.mkdir()
    items = [f"i{item},Thing {item},a {'soft' if item % 2 else 'bold'} thing" for item in range(12)]
    rows = [
        f"p{user},i{(user + 2 * step) % 12},{step},{TEXTS[user % 2]}"
        for user in range(6)
        for step in range(5)
    ]
    (folder / "items.csv").write_text("\n".join(["item_id,title,description", *items]) + "\n")
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,review", *rows]) + "\n"
    )
    with write_artifact(tmp_path / "recommender", "recommender") as staging:
        (staging / "weights").write_text("none")
    for module in ("generate.text.run", "generate.ranker"):
        monkeypatch.setattr(f"{module}.load_ranker", lambda *_, **__: StageRanker())
    return TextConfig(
        recommender=str(tmp_path / "recommender"),
        catalog=CatalogConfig(path=str(folder)),
        split=SplitConfig(kind="leave-one-out"),
        config={**TINY_GPT2},
        vocab_size=320,
        max_tokens=24,
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, log_every=1, progress=False, accelerator="cpu"),
    )
