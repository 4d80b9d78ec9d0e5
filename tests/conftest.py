"""What holds for every test: nothing is downloaded, and tokenizers stay on one thread."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.pretrained import missing_packages, pretrained_folder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


NUMERIC = {
    "finetune": "bag_of_words baselines cold_start evaluate list_metrics losses metrics not_finite "
    "repeats semantic_ids semantic_ranker statistics whitening",
    "pretrain": "encoder objectives projection_init sequence_encoder",
    "generate": "conditioning decoding image image_codec image_evaluation image_guidance solvers "
    "structure text text_filter text_score",
    "benchmarks": "speed",
}
"""Files of tests whose outcome may depend on how a processor rounds: all of theirs are `numeric`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    numeric = {
        Path(__file__).parent / folder / f"test_{name}.py"
        for folder, names in NUMERIC.items()
        for name in names.split()
    }
    absent = sorted(path.name for path in numeric if not path.exists())
    assert not absent, f"NUMERIC names files that are not there: {absent}"
    missing = ", ".join(missing_packages())
    without_weights = pytest.mark.skip(reason=f"{missing} not installed; run ./install --test")
    for item in items:
        if item.path in numeric:
            item.add_marker(pytest.mark.numeric)
        if missing and item.get_closest_marker("pretrained"):
            item.add_marker(without_weights)


@pytest.fixture(scope="session", autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever runs the tests keeps their own keys out of it."""
    folder = tmp_path_factory.mktemp("keys")
    os.environ["VITRINE_KEY"] = str(folder / "key.pem")
    os.environ["VITRINE_USER_KEY"] = str(folder / "users.key")


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world: `home/`, `wardrobe/` and `ground_truth/`, with its cache beside it."""
    from catalog.demo import build_demo_world

    folder = tmp_path_factory.mktemp("world")
    os.environ.setdefault("VITRINE_CACHE", str(folder / "cache"))
    return build_demo_world(folder / "world", num_items=80, num_users=60)


@pytest.fixture(scope="session")
def pretrained_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a real pretrained model (text, image or words), for tests marked `pretrained`."""
    os.environ.setdefault("VITRINE_CACHE", str(tmp_path_factory.mktemp("pretrained") / "cache"))
    return pretrained_folder
