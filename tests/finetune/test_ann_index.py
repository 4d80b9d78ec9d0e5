"""An index loses nothing but what it never proposed, and says how much that is."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from catalog.artifacts import open_artifact
from catalog.catalog import load_catalog
from catalog.errors import VitrineError
from catalog.interactions import Interactions
from finetune.ann_index import (
    AnnIndex,
    build_index,
    ivf_pq_parameters,
    measure_recall,
    open_index,
    run_indexing,
)
from finetune.config import FinetuneConfig, IndexConfig
from finetune.exact_search import search_exact
from finetune.extension import extend
from finetune.ranker import Ranker, load_ranker
from finetune.recommendations import recommend
from finetune.recommender import Recommender
from finetune.run import run_finetuning
from launch.cli import main
from launch.trainer import build_trainer
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig

NUM_ITEMS, WIDTH = 10_000, 16


@pytest.fixture(scope="module")
def large() -> tuple[Ranker, SimpleNamespace]:
    """Items in a hundred clusters, an untrained sequence encoder, and sixty users' histories."""
    generator = torch.Generator().manual_seed(0)
    heaps = torch.randn(100, WIDTH, generator=generator)
    spread = 0.5 * torch.randn(NUM_ITEMS, WIDTH, generator=generator)
    vectors = F.normalize(heaps[torch.arange(NUM_ITEMS) % 100] + spread, dim=-1)
    torch.manual_seed(0)
    recommender = Recommender(None, SequenceEncoder(SequenceEncoderConfig(width=WIDTH)))
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    # Each takes from one heap: what is nearest to their state is what they have.
    taken = [rng.choice(100, n, replace=False) * 100 + user for user, n in enumerate(lengths)]
    items = np.concatenate(taken).astype(np.int32)
    catalog = SimpleNamespace(interactions=Interactions(offsets, items, np.arange(len(items))))
    return Ranker(recommender, vectors.numpy()), catalog


@pytest.fixture(scope="module")
def run(settings: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_finetuning(settings, tmp_path_factory.mktemp("run") / "run", build_trainer)


def brute_force(ranker: Ranker, histories: list[np.ndarray], k: int) -> list[list[int]]:
    scores = (ranker.user_states(histories) @ torch.from_numpy(ranker.item_vectors).T).numpy()
    for row, history in enumerate(histories):
        scores[row, history] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


def histories_of(catalog: SimpleNamespace) -> list[np.ndarray]:
    return [catalog.interactions.history(user) for user in range(60)]


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf-pq"])
def index(request: pytest.FixtureRequest, large: tuple[Ranker, SimpleNamespace]) -> AnnIndex:
    config = IndexConfig(request.param, ef_construction=40)
    return AnnIndex(build_index(config, large[0].item_vectors)[0], large[0])


def test_flat_equals_exact(large: tuple[Ranker, SimpleNamespace]) -> None:
    ranker, catalog = large
    index = AnnIndex(build_index(IndexConfig("flat"), ranker.item_vectors)[0], ranker)
    histories = histories_of(catalog)
    found = index.search(ranker.user_states(histories), histories, 10)
    assert [[item for item, _ in listed] for listed in found] == brute_force(ranker, histories, 10)
    for history in histories[:5]:
        items, scores = zip(*index.rank(history, 7), strict=True)
        exact, exact_scores = zip(*ranker.rank(history, 7), strict=True)
        assert items == exact
        np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


def true_recall(index: AnnIndex, catalog: SimpleNamespace) -> float:
    histories = histories_of(catalog)
    best = brute_force(index.ranker, histories, 10)
    found = index.search(index.ranker.user_states(histories), histories, 10)
    pairs = zip(found, best, strict=True)
    return float(
        np.mean([len({item for item, _ in listed} & set(exact)) / 10 for listed, exact in pairs])
    )


def test_recall_equals_brute_force_also_where_it_is_low(
    index: AnnIndex, large: tuple[Ranker, SimpleNamespace]
) -> None:
    catalog = large[1]
    measured = measure_recall(index, catalog, 1000)
    assert measured["num_users"] == 60
    assert measured["recall@10"] == pytest.approx(true_recall(index, catalog))
    assert measured["recall@10"] >= 0.8
    if hasattr(index.index, "nprobe"):
        usual, index.index.nprobe = index.index.nprobe, 1
        low = measure_recall(index, catalog, 60)["recall@10"]
        assert low == pytest.approx(true_recall(index, catalog))
        assert low < 0.8
        index.index.nprobe = usual


def test_items_of_the_history_are_excluded_and_scores_are_exact(
    index: AnnIndex, large: tuple[Ranker, SimpleNamespace]
) -> None:
    ranker, catalog = large
    histories = histories_of(catalog)
    states = ranker.user_states(histories)
    for state, history, listed in zip(
        states, histories, index.search(states, histories, 10), strict=True
    ):
        rows, scores = map(list, zip(*listed, strict=True))
        assert len(rows) == 10
        assert not set(rows) & set(history.tolist())
        exact = torch.from_numpy(ranker.item_vectors[rows]) @ state
        np.testing.assert_allclose(scores, exact, atol=1e-6)
        assert scores == sorted(scores, reverse=True)


def test_parameters_follow_the_number_of_items() -> None:
    config = IndexConfig("ivf-pq")
    expected = {"nlist": 4000, "bytes": 16, "nprobe": 250, "sample": 256_000}
    assert ivf_pq_parameters(config, 1_000_000, 64) == expected
    expected = {"nlist": 256, "bytes": 3, "nprobe": 16, "sample": 10_000}
    assert ivf_pq_parameters(config, 10_000, 15) == expected
    few = replace(config, nlist=8, nprobe=20)
    assert ivf_pq_parameters(few, 10_000, 16)["nprobe"] == 8
    with pytest.raises(VitrineError, match=r"--nlist 400 asks for more .* use 256 at most"):
        ivf_pq_parameters(replace(config, nlist=400), 10_000, 16)
    with pytest.raises(VitrineError, match=r"9,000 items, not 9,984; use --kind flat or hnsw"):
        ivf_pq_parameters(config, 9000, 16)


def test_nearest_rows_are_those_of_a_sort() -> None:
    vectors = np.random.default_rng(0).standard_normal((40_000, 9)).astype(np.float32)
    queries = torch.randn(3, 5)
    allowed = np.arange(40_000) % 3 == 0
    scores, rows = search_exact(queries, vectors, 20, allowed)
    exact = (queries @ torch.from_numpy(vectors[:, :5]).T).numpy()
    exact[:, ~allowed] = -np.inf
    np.testing.assert_array_equal(rows, np.argsort(-exact, axis=1)[:, :20])
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :20], atol=1e-6)


def test_the_command_makes_one_and_recommends_by_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "index"
    assert main(["index", str(run), "--kind", "hnsw", "--output", str(output)]) == 0
    assert "recall@10 1.0000 against exact search, over 60 users" in capsys.readouterr().err
    metrics = open_artifact(output, kind="index").manifest["metrics"]
    assert metrics["recall@10"] == 1.0
    assert metrics["m"] == 32
    arguments = ["recommend", str(run), "--history", "w00001,w00005", "--k", "8"]
    assert main(arguments) == 0
    exact = capsys.readouterr().out
    assert main([*arguments, "--index", str(output)]) == 0
    assert capsys.readouterr().out == exact
    assert recommend(run, history="", index=output).source == "popularity"
    for wrong in (["--num_users", "0"], ["--m", "1"], ["--kind", "ivf-pq"]):
        assert main(["index", str(run), *wrong, "--output", str(tmp_path / "none")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_index_of_another_recommender_is_refused(
    run: Path, settings: FinetuneConfig, tmp_path: Path
) -> None:
    index = run_indexing(IndexConfig("flat"), run, tmp_path / "index")
    other = extend(run, tmp_path / "other").path
    with pytest.raises(
        VitrineError, match=r"is an index of the recommender .*; build one: vitrine index"
    ):
        recommend(other, history="w00001", index=index)
    trainer = replace(settings.trainer, seed=5)
    again = run_finetuning(replace(settings, trainer=trainer), tmp_path / "seed", build_trainer)
    ranker = load_ranker(again, load_catalog(settings.catalog))
    with pytest.raises(VitrineError, match="is an index of the recommender"):
        open_index(index, again, ranker)
    file = index / "index.faiss"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(VitrineError, match=r"index\.faiss differs from its checksum"):
        recommend(run, history="w00001", index=index)


def test_faiss_takes_as_many_threads_as_torch_also_where_it_came_first() -> None:
    # Loaded after torch it shares torch's OpenMP, before it brings one of its own.
    code = """
import faiss, numpy, torch
torch.set_num_threads(1)
from finetune.config import IndexConfig
from finetune.ann_index import build_index
vectors = numpy.eye(8, dtype="float32").repeat(50, 0)
index, _ = build_index(IndexConfig("hnsw"), vectors)
assert faiss.omp_get_max_threads() == torch.get_num_threads() == 1
exact = torch.from_numpy(vectors) @ torch.from_numpy(vectors).T
assert index.search(vectors, 1)[0][0, 0] == exact[0].max().item() == 1
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environment)


def test_without_faiss_the_error_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(VitrineError, match="pip install faiss-cpu"):
        build_index(IndexConfig("flat"), np.zeros((1, 4), np.float32))
