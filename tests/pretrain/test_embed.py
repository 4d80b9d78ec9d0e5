"""A catalog to vectors: whole after a stop, only what changed, the same on many processes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

import pretrain.embed_items
from catalog.artifacts import open_artifact, write_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from pretrain import embed
from pretrain import embed_items as embed_items_module
from pretrain.artifact import EncoderBundle, new_encoder
from pretrain.config import EmbedConfig, EncoderConfig, ExtractConfig, SequenceConfig, TowerConfig
from pretrain.embed import run_embedding
from pretrain.embed_items import embed_items, length_sorted_batches, on_device, read_ahead
from pretrain.tokenizer import train_tokenizer
from pretrain.vector_file import VectorWriter, open_vectors

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NUM_ITEMS = 70


def write_shop(
    folder: Path, changed: dict[int, str] | None = None, num_items: int = NUM_ITEMS
) -> Path:
    """Items of very different length; item 5 has no words at all."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    words = np.array(["oak", "vase", "blue", "dotted", "linen", "wide", "old"])
    titles = [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(num_items)]
    titles[5] = ""
    for item, title in (changed or {}).items():
        titles[item] = title
    rows = [{"item_id": f"i{n:03}", "title": title or None} for n, title in enumerate(titles)]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = [f"{u},i{(7 * u + t) % num_items:03},{t}" for u in range(9) for t in range(4)]
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp", *taken]) + "\n"
    )
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("embed") / "shop")


@pytest.fixture(scope="module")
def encoder(shop: Path) -> Path:
    torch.manual_seed(0)
    catalog = load_catalog(CatalogConfig(path=str(shop)))
    settings = EncoderConfig(
        width=8,
        text=TowerConfig(config=BERT, vocab_size=60),
        image=None,
        sequence=SequenceConfig(layers=1, heads=2),
    )
    bundle = new_encoder(settings, catalog)
    with write_artifact(shop.parent / "encoder", kind="encoder") as staging:
        bundle.save(staging.path)
    return shop.parent / "encoder"


@pytest.fixture
def config(shop: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> EmbedConfig:
    monkeypatch.setattr(embed, "BLOCK", 16)  # five blocks
    return EmbedConfig(encoder=str(encoder), catalog=CatalogConfig(path=str(shop)), batch_tokens=90)


def stored(output: Path) -> dict[str, np.ndarray]:
    """Item id → vector."""
    ids = pq.read_table(output / "item_ids.parquet")["item_id"].to_pylist()
    vectors = load_file(output / "item_vectors.safetensors")["vectors"]  # as anybody reads it
    return dict(zip(ids, vectors, strict=True))


def count_passes(monkeypatch: pytest.MonkeyPatch, stop_after: int = -1) -> list[int]:
    """Items that went through the towers, pass by pass; may raise as Ctrl-C does."""
    passes: list[int] = []
    write = embed.EmbeddingRun._write

    def recording_write(
        self: embed.EmbeddingRun, name: str, items: np.ndarray, vectors: torch.Tensor
    ) -> None:
        if len(passes) == stop_after:
            raise KeyboardInterrupt
        passes.append(len(items))
        write(self, name, items, vectors)

    monkeypatch.setattr(embed.EmbeddingRun, "_write", recording_write)
    return passes


def test_every_item_has_the_vector_it_has_alone(config: EmbedConfig, tmp_path: Path) -> None:
    output = run_embedding(config, tmp_path / "vectors")
    catalog = load_catalog(config.catalog)
    bundle = EncoderBundle.load(Path(config.encoder))
    loader = bundle.content_loader(catalog)
    found = stored(output)
    assert len(found) == NUM_ITEMS
    for item in (0, 5, 33, 69):
        with torch.no_grad():
            alone = bundle.encoder.eval()(loader.read(np.array([item]))).item[0].numpy()
        np.testing.assert_allclose(found[f"i{item:03}"], alone, atol=1e-5)
    assert open_artifact(output, kind="vectors").manifest["metrics"] == {
        "items": NUM_ITEMS,
        "copied": 0,
        "device": "cpu",
        "precision": "32-true",
    }
    assert not (tmp_path / "vectors.work").exists()


def test_batches_hold_like_lengths_within_the_budget(config: EmbedConfig) -> None:
    catalog = load_catalog(config.catalog)
    loader = EncoderBundle.load(Path(config.encoder)).content_loader(catalog)
    items = np.arange(NUM_ITEMS)
    batches = list(length_sorted_batches(loader, items, 90))
    assert sorted(np.concatenate(batches).tolist()) == items.tolist()
    padded = needed = 0
    for batch in batches:
        mask = loader.read(batch)["text"]["attention_mask"]
        assert mask.numel() <= 90 or len(batch) == 1
        padded += mask.numel()
        needed += int(mask.sum())
    assert padded <= 1.35 * needed, "little of what goes through a tower is padding"


def test_a_batch_ends_where_items_become_much_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([100, 95, 90, 89, 50, 50, 46, 45, 44, 3, 2])
    loader = SimpleNamespace(prefetch=lambda items: lengths[items], release=lambda: None)
    monkeypatch.setattr(embed_items_module, "SMALL_BATCH", 100)

    def batches(budget: int) -> list[list[int]]:
        found = length_sorted_batches(loader, np.arange(11), budget)  # pyright: ignore
        return [lengths[batch].tolist() for batch in found]

    whole = [[100, 95, 90], [89], [50, 50, 46, 45], [44, 3], [2]]
    assert [sorted(one, reverse=True) for one in batches(10_000)] == whole
    assert max(map(len, batches(150))) == 3, "the budget holds as well"
    monkeypatch.setattr(embed_items_module, "SMALL_BATCH", 10_000)
    assert batches(10_000) == [sorted(lengths.tolist(), reverse=True)]


def test_after_a_stop_it_goes_on_where_it_was(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stored(run_embedding(config, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        count_passes(patch, stop_after=12)
        with pytest.raises(KeyboardInterrupt):
            run_embedding(config, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists(), "half a store is no artifact"
    blocks = np.load(tmp_path / "vectors.work" / "done.npy")
    assert 0 < blocks.sum() < len(blocks)
    passes = count_passes(monkeypatch)
    again = stored(run_embedding(config, tmp_path / "vectors"))
    assert sum(passes) == 16 * (len(blocks) - blocks.sum()) - (16 * len(blocks) - NUM_ITEMS)
    for name, vector in whole.items():
        np.testing.assert_array_equal(again[name], vector)


def test_what_another_request_left_half_done_is_not_gone_on_from(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        count_passes(patch, stop_after=12)
        with pytest.raises(KeyboardInterrupt):
            run_embedding(config, tmp_path / "vectors")
    passes = count_passes(monkeypatch)
    run_embedding(replace(config, batch_tokens=91), tmp_path / "vectors")
    assert sum(passes) == NUM_ITEMS


def test_only_what_changed_is_read_by_the_towers_again(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_shop(tmp_path / "shop")
    config = replace(config, catalog=CatalogConfig(path=str(shop)))
    before = stored(run_embedding(config, tmp_path / "vectors"))
    write_shop(shop, {3: "a new name", 40: "another new name"}, NUM_ITEMS + 2)
    passes = count_passes(monkeypatch)
    after = stored(run_embedding(config, tmp_path / "vectors"))
    assert sum(passes) == 4
    metrics = open_artifact(tmp_path / "vectors").manifest["metrics"]
    assert (metrics["items"], metrics["copied"]) == (NUM_ITEMS + 2, NUM_ITEMS - 2)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == {"i003", "i040"}
    fresh = stored(run_embedding(config, tmp_path / "fresh"))
    for name, vector in fresh.items():
        np.testing.assert_allclose(after[name], vector, atol=1e-5)


def test_another_encoder_copies_nothing(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_embedding(config, tmp_path / "vectors")
    bundle = EncoderBundle.load(Path(config.encoder))
    torch.nn.init.normal_(bundle.encoder.heads["text"].weight)
    with write_artifact(tmp_path / "other", kind="encoder") as staging:
        bundle.save(staging.path)
    passes = count_passes(monkeypatch)
    run_embedding(replace(config, encoder=str(tmp_path / "other")), tmp_path / "vectors")
    assert sum(passes) == NUM_ITEMS


def test_two_processes_share_the_blocks(config: EmbedConfig, tmp_path: Path) -> None:
    alone = stored(run_embedding(replace(config, batch_tokens=8192), tmp_path / "alone"))
    script = Path(__file__).with_name("embed_on_ranks.py")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    output = tmp_path / "vectors"
    done = subprocess.run(
        [*start, str(script), config.catalog.path, config.encoder, str(output)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert facts == [{"ranks": 2, "blocks": [0, 2, 4]}, {"ranks": 2, "blocks": [1, 3]}]
    for name, vector in stored(output).items():
        np.testing.assert_allclose(vector, alone[name], atol=1e-5)


def test_extractors_give_what_the_model_itself_gives(config: EmbedConfig, tmp_path: Path) -> None:
    catalog = load_catalog(config.catalog)
    texts = [catalog.item_text(item) for item in range(NUM_ITEMS)]
    tokenizer = train_tokenizer((text or "" for text in texts), 60)
    torch.manual_seed(3)
    model = BertModel(
        BertConfig(vocab_size=60, **{k: v for k, v in BERT.items() if k != "model_type"}),
        add_pooling_layer=False,
    ).eval()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    chosen = {
        "second": ExtractConfig(model=str(tmp_path / "model"), layer=-2, pooling="cls"),
        "own": ExtractConfig(modality="text", layer=1),
    }
    output = run_embedding(replace(config, extract=chosen), tmp_path / "vectors")
    table = pq.read_table(output / "item_ids.parquet")
    assert table["has_second"].to_pylist() == [bool(text) for text in texts]
    found = open_vectors(output / "second.safetensors")
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "model") for kind in (AutoModel, AutoTokenizer)
    )
    for item in (0, 9, 69):
        inputs = tokenizer(texts[item], return_tensors="pt", truncation=True, max_length=48)
        with torch.no_grad():
            states = model.eval()(**inputs, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(found[item], states[1][0, 0], atol=1e-5)
    assert not found[5].any()
    bundle = EncoderBundle.load(Path(config.encoder))
    content = bundle.content_loader(catalog).read(np.array([9]))["text"]
    with torch.no_grad():
        states = bundle.encoder.towers["text"].eval()(
            content["input_ids"], content["attention_mask"], output_hidden_states=True
        )
    own = open_vectors(output / "own.safetensors")[9]
    np.testing.assert_allclose(own, states.hidden_states[1][0].mean(dim=0), atol=1e-5)
    # And without any encoder at all.
    alone = replace(config, encoder="", extract={"second": chosen["second"]})
    bare = run_embedding(alone, tmp_path / "bare")
    assert not (bare / "item_vectors.safetensors").exists()
    np.testing.assert_allclose(open_vectors(bare / "second.safetensors"), found, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ""}, "nothing to embed with"),
        ({"extract": {"x": ExtractConfig(modality="txt")}}, "Did you mean 'text'"),
        ({"extract": {"x": ExtractConfig()}}, "names no model, and an untrained"),
        ({"encoder": "", "extract": {"x": ExtractConfig(modality="text")}}, "no encoder was given"),
        ({"extract": {"item_vectors": ExtractConfig(modality="text")}}, "use another name"),
    ],
)
def test_a_mistake_is_one_clear_line(
    changes: dict, message: str, config: EmbedConfig, tmp_path: Path
) -> None:
    with pytest.raises(VitrineError, match=message):
        run_embedding(replace(config, **changes), tmp_path / "vectors")


def test_a_store_takes_rows_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 6)).astype(np.float32)
    writer = VectorWriter(tmp_path / "a.safetensors", 50, 6)
    order = rng.permutation(50)
    for part in np.array_split(order, 7):
        writer.write(part, values[part])
    writer.close()
    np.testing.assert_array_equal(open_vectors(tmp_path / "a.safetensors"), values)
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["vectors"], values)


def test_vectors_come_in_the_order_they_are_asked_for(config: EmbedConfig) -> None:
    catalog = load_catalog(config.catalog)
    bundle = EncoderBundle.load(Path(config.encoder))
    loader = bundle.content_loader(catalog)
    everything = np.empty((NUM_ITEMS, 8), dtype=np.float32)
    embed_items(bundle.encoder, loader, everything, progress=False)
    asked = np.array([60, 2, 31, 5])
    some = np.empty((4, 8), dtype=np.float32)
    embed_items(bundle.encoder, loader, some, items=asked, progress=False)
    np.testing.assert_allclose(some, everything[asked], atol=1e-5)


def test_batches_are_read_ahead_in_order_in_another_thread() -> None:
    reading: list[tuple[int, int]] = []
    used: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(5):
            reading.append((number, threading.get_ident()))
            yield number

    for number in read_ahead(batches()):
        used.append(number)
        if number == 0:
            time.sleep(0.05)
            assert [read for read, _ in reading] == [0, 1]  # one ahead, not more
    assert used == [0, 1, 2, 3, 4]
    assert {thread for _, thread in reading} != {threading.get_ident()}


def test_an_error_of_reading_ahead_comes_after_the_batches_before_it() -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise VitrineError("the disk is gone")

    ahead = read_ahead(batches())
    assert next(ahead) == 0
    with pytest.raises(VitrineError, match="the disk is gone"):
        next(ahead)


def test_ranks_that_step_together_read_nothing_ahead(
    config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(batches: object) -> None:
        raise AssertionError("read ahead")

    monkeypatch.setattr(pretrain.embed_items, "read_ahead", refuse)
    assert list(on_device([(0, {})], torch.device("cpu"), None, ahead=False)) == [(0, {})]
    with pytest.raises(AssertionError, match="read ahead"):
        list(on_device([(0, {})], torch.device("cpu"), None))
