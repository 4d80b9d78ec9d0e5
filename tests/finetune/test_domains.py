"""Several domains on one base: each ranks as if it were loaded alone, however they are swapped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.catalog import Catalog, load_catalog
from catalog.config import CatalogConfig
from catalog.errors import VitrineError
from finetune.config import FinetuneConfig, LoraConfig
from finetune.domains import Domains, DomainStore
from finetune.ranker import load_ranker
from finetune.run import run_finetuning
from launch.cli import main
from launch.trainer import build_trainer
from pretrain.run import run_pretraining

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def shop(settings: FinetuneConfig) -> Catalog:
    return load_catalog(settings.catalog)


@pytest.fixture(scope="module")
def folders(
    settings: FinetuneConfig, demo_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Adapters of different rank, seed and catalog."""
    folder = tmp_path_factory.mktemp("domains")
    trainer = replace(settings.trainer, seed=7, max_steps=8)
    optimizer = replace(settings.optimizer, learning_rate=0.02)
    home = CatalogConfig(path=str(demo_world / "home"))
    configs = {
        "one": replace(settings, optimizer=optimizer),
        "two": replace(settings, trainer=trainer, optimizer=optimizer, lora=LoraConfig(rank=4)),
        "three": replace(settings, optimizer=optimizer, catalog=home, allow_seen=True),
    }
    return {n: run_finetuning(c, folder / n, build_trainer) for n, c in configs.items()}


def states(shop: object) -> torch.Tensor:
    histories = [np.arange(5), np.array([7, 3]), np.array([11])]
    return shop.user_states(histories)  # pyright: ignore[reportAttributeAccessIssue]


def test_an_adapter_swap_equals_loading_each_domain_alone(
    folders: dict[str, Path], settings: FinetuneConfig, demo_world: Path
) -> None:
    catalogs = dict.fromkeys(NAMES, load_catalog(settings.catalog))
    catalogs["three"] = load_catalog(CatalogConfig(path=str(demo_world / "home")))
    alone = {name: load_ranker(folders[name], catalogs[name]) for name in NAMES}
    domains = Domains(settings.encoder)
    for name in NAMES:
        domains.add(name, folders[name])
    for name in ("one", "two", "one", "three", "two", "three", "one"):
        torch.testing.assert_close(
            states(domains.ranker(name)), states(alone[name]), rtol=0, atol=0
        )
        history = np.array([4, 2])
        assert domains.ranker(name).rank(history, 5) == alone[name].rank(history, 5)
    assert (states(alone["one"]) - states(alone["two"])).abs().max().item() > 1e-3
    domains.remove("two")
    assert len(domains) == 2
    torch.testing.assert_close(
        states(domains.ranker("three")), states(alone["three"]), rtol=0, atol=0
    )
    domains.remove("three")
    domains.remove("one")
    domains.add("two", folders["two"])
    torch.testing.assert_close(states(domains.ranker("two")), states(alone["two"]), rtol=0, atol=0)


def test_a_domain_embeds_images_by_its_own_adapter_whichever_was_active(
    folders: dict[str, Path], shop: Catalog, settings: FinetuneConfig
) -> None:
    alone = {name: load_ranker(folders[name], shop) for name in ("one", "two")}
    domains = Domains(settings.encoder)
    for name in alone:
        domains.add(name, folders[name])
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    seen = {name: own.image_vectors([picture]) for name, own in alone.items()}
    assert (seen["one"] - seen["two"]).abs().max().item() > 1e-4
    for name, asked_before in (("one", "two"), ("two", "one")):
        states(domains.ranker(asked_before))
        found = domains.ranker(name).image_vectors([picture])
        torch.testing.assert_close(found, seen[name], rtol=0, atol=0)


def test_a_removed_domain_answers_nothing(
    folders: dict[str, Path], settings: FinetuneConfig
) -> None:
    domains = Domains(settings.encoder)
    for name in ("one", "two"):
        domains.add(name, folders[name])
    kept = domains.ranker("two")
    domains.remove("two")
    with pytest.raises(VitrineError, match="there is no domain 'two'"):
        states(kept)


def test_a_store_remembers_names_and_the_one_in_use(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    for name in ("one", "two"):
        assert main(["domains", "add", name, str(folders[name]), "--store", store]) == 0
    assert main(["domains", "use", "two", "--store", store]) == 0
    assert main(["domains", "list", "--store", store]) == 0
    assert f"* two  {folders['two']}" in capsys.readouterr().out
    assert main(["recommend", store, "--history", "w00001", "--k", "3"]) == 0
    in_use = capsys.readouterr().out
    assert main(["recommend", str(folders["two"]), "--history", "w00001", "--k", "3"]) == 0
    assert capsys.readouterr().out == in_use
    assert main(["recommend", store, "--domain", "one", "--history", "w00001", "--k", "3"]) == 0
    assert capsys.readouterr().out != in_use
    assert main(["domains", "remove", "two", "--store", store]) == 0
    assert DomainStore.read(store).in_use == "one"
    assert len(DomainStore.read(store).open()) == 1


def test_what_does_not_fit_is_refused_in_one_line(
    folders: dict[str, Path], settings: FinetuneConfig, tmp_path: Path
) -> None:
    store = DomainStore(tmp_path)
    store.add("one", folders["one"])
    with pytest.raises(VitrineError, match="there is a domain 'one' already"):
        store.add("one", folders["two"])
    with pytest.raises(VitrineError, match=r"there is no domain 'on' .* Did you mean 'one'"):
        store.use("on")
    whole = run_finetuning(replace(settings, transfer="full"), tmp_path / "full", build_trainer)
    with pytest.raises(VitrineError, match="was fitted with transfer full, features content"):
        store.add("full", whole)
    with pytest.raises(VitrineError, match="holds no domains; add one: vitrine domains add"):
        DomainStore.read(tmp_path / "nowhere")


def test_an_adapter_of_another_base_is_refused(
    folders: dict[str, Path], settings: FinetuneConfig, tmp_path: Path
) -> None:
    from catalog.artifacts import open_artifact
    from launch.settings import load_settings
    from pretrain.config import PretrainConfig

    values = open_artifact(Path(settings.encoder)).manifest["config"]
    config = load_settings(PretrainConfig, None, [])
    config = replace(
        config,
        catalog=CatalogConfig(**values["catalog"]),
        encoder=replace(config.encoder, width=32, text=None),
        data=replace(config.data, max_broken=0.2),
        trainer=replace(config.trainer, max_steps=1, progress=False),
    )
    other = run_pretraining(config, tmp_path / "other", build_trainer)
    domains = Domains(other)
    with pytest.raises(VitrineError, match="was trained on the encoder"):
        domains.add("one", folders["one"])
    foreign = run_finetuning(replace(settings, encoder=str(other)), tmp_path / "x", build_trainer)
    store = DomainStore(tmp_path / "store")
    store.add("one", folders["one"])
    with pytest.raises(VitrineError, match="was trained on the encoder"):
        store.add("x", foreign)
