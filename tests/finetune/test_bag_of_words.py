"""Words with vectors of their own: what is read, what is stored, and that controls keep them out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from catalog.splits import make_split
from finetune.artifact import load_recommender
from finetune.bag_of_words import BagOfWordsEmbedding, Vocabulary, words_of
from finetune.config import FinetuneConfig
from finetune.domains import open_adapter
from finetune.manifest import train_counts
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from launch.trainer import build_trainer
from pretrain.artifact import EncoderBundle
from pretrain.config import SequenceConfig
from pretrain.embed_items import embed_items
from pretrain.vector_file import open_vectors


def shop_of(folder: Path, titles: list[str]) -> Path:
    folder.mkdir()
    lines = ["item_id\ttitle"] + [f"i{place}\t{title}" for place, title in enumerate(titles)]
    (folder / "items.tsv").write_text("\n".join(lines) + "\n")
    rows = ["user_id\titem_id\ttimestamp"]
    rows += [f"u{p % 5}\ti{p % len(titles)}\t{p}" for p in range(6 * len(titles))]
    (folder / "interactions.tsv").write_text("\n".join(rows) + "\n")
    return folder


TITLES = ["Rouge à lèvres ACME", "acme nail polish", "nail file", "", "Solitary", "口红 acme"]


def test_words_are_split_and_normalised() -> None:
    assert words_of("L'Oréal 0.5-oz (ACME)!") == {"l", "oreal", "0", "5", "oz", "acme"}
    assert words_of("口红") == {"口", "红"}
    assert words_of(None) == words_of("—!") == set()


def test_an_item_is_the_weighted_sum_of_its_words(tmp_path: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(shop_of(tmp_path / "shop", TITLES))))
    vocabulary = Vocabulary.learn(catalog)
    assert vocabulary.words == ["acme", "nail"]  # the others are said of one item alone
    vectors = BagOfWordsEmbedding(2, 4)
    vectors.set_items(vocabulary.read(catalog))
    rarity = np.log(6 / np.array([3, 2]))
    expected = np.zeros((6, 4), dtype=np.float32)
    weight = vectors.weight.detach().numpy()
    for item, said in enumerate([[0], [0, 1], [1], [], [], [0]]):
        for word in said:
            expected[item] += rarity[word] * weight[word] / np.linalg.norm(rarity[said])
    with torch.no_grad():
        np.testing.assert_allclose(vectors().numpy(), expected, atol=1e-6)
        some = torch.tensor([5, 3, 1, 1])
        np.testing.assert_allclose(vectors(some).numpy(), expected[some], atol=1e-6)
        wordless = torch.tensor([3, 4])
        np.testing.assert_array_equal(vectors(wordless).numpy(), np.zeros((2, 4)))
    vocabulary.save(tmp_path)
    again = Vocabulary.load(tmp_path)
    assert again.words == vocabulary.words
    np.testing.assert_array_equal(again.rarity, vocabulary.rarity)
    turned = vocabulary.read(catalog, order=np.array([1, 0, 2, 3, 4, 5]))
    assert turned.words[: int(turned.offsets[1])].tolist() == [0, 1], "another item's words"


def test_a_catalog_without_words_is_refused(tmp_path: Path) -> None:
    catalog = load_catalog(CatalogConfig(path=str(shop_of(tmp_path / "shop", ["", "one", ""]))))
    with pytest.raises(
        VitrineError, match="no word is in 2 items of shop; leave out --bag_of_words"
    ):
        Vocabulary.learn(catalog)


@pytest.mark.parametrize(
    ("features", "transfer", "id_width"),
    [("content", "frozen", 0), ("content", "lora", 8), ("content+id", "full", 8)],
)
def test_a_stored_vocabulary_gives_the_same_word_bags(
    features: str, transfer: str, id_width: int, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(
        settings, features=features, transfer=transfer, id_width=id_width, bag_of_words=True
    )
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    catalog = load_catalog(config.catalog)
    shop = load_ranker(output, catalog)
    ranking = shop.rank_targets(catalog, make_split(catalog, config.split).test)
    np.testing.assert_array_equal(ranking.ranks, np.load(output / "test_ranks.npy"))

    artifact = open_artifact(output, kind="recommender")
    recommender = load_recommender(artifact).eval()
    assert recommender.bag_of_words is not None
    recommender.bag_of_words.set_items(Vocabulary.load(output).read(catalog))
    own = artifact.path / "encoder"
    loader = EncoderBundle.load(own if own.exists() else artifact.parent("encoder")).content_loader(
        catalog
    )
    content = np.empty((catalog.num_items, 32), dtype=np.float32)
    assert recommender.encoder is not None
    embed_items(recommender.encoder, loader, content, progress=False)
    with torch.no_grad():
        made = recommender.adapt(torch.from_numpy(content)).numpy()
    stored = open_vectors(output / "item_vectors.safetensors")
    learned = (
        train_counts(output) > 0
    )  # ids of others learned nothing, and are not in what is stored
    np.testing.assert_allclose(made[learned], stored[learned], atol=1e-5)
    if transfer == "lora":
        with safe_open(output / "adapter" / "adapter_model.safetensors", "pt") as adapter:
            words = [n for n in adapter.keys() if "bag_of_words" in n]  # noqa: SIM118
            assert [adapter.get_tensor(n).shape[1] for n in words] == [8]
        with pytest.raises(VitrineError, match="words; domains that share a base"):
            open_adapter(output)
    sampled = replace(config, loss="sampled", negatives=9)
    run_finetuning(sampled, tmp_path / "sampled", build_trainer)


def test_words_join_ids_without_an_encoder(demo_world: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(
        catalog=CatalogConfig(path=str(demo_world / "wardrobe")),
        transfer="scratch",
        features="id",
        bag_of_words=True,
        width=16,
        sequence=SequenceConfig(layers=1, heads=2, max_history=5, recency=0.5),
    )
    config = replace(config, trainer=replace(config.trainer, max_steps=2, progress=False))
    output = run_finetuning(config, tmp_path / "run", build_trainer)
    recommender = load_recommender(open_artifact(output))
    assert recommender.bag_of_words is not None
    assert recommender.history.mean_residual is not None
    assert 0.4 < recommender.history.mean_residual.recency.item() < 0.6


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"features": "random", "transfer": "scratch"},
            "'random' is a control without item content",
        ),
        ({"transfer": "zero-shot"}, "'zero-shot' trains nothing"),
        ({"modalities": "image"}, "modalities 'image' leaves out the text"),
    ],
)
def test_bag_of_words_is_refused_for_controls(
    changes: dict[str, str], line: str, settings: FinetuneConfig, tmp_path: Path
) -> None:
    config = replace(settings, bag_of_words=True, **changes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(VitrineError, match=line):
        run_finetuning(config, tmp_path / "run", build_trainer)
