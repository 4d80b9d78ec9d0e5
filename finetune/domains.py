"""Adapter swap: several domains share one base encoder, each with a LoRA adapter of a few MB.

A store is a folder with `domains.json`: the base encoder, the recommenders by name, and the active one.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor

from catalog.artifacts import Artifact, open_artifact
from catalog.atomic_write import replace_file
from catalog.errors import VitrineError, did_you_mean
from finetune.artifact import ADAPTER
from finetune.manifest import check_base, serves_repeats
from finetune.ranker import History, Ranker
from finetune.recommender import Recommender
from pretrain.artifact import open_encoder
from pretrain.hub import one_line_errors
from pretrain.lora import expose_convolutions
from pretrain.vector_file import open_vectors
from pretrain.vectors_artifact import VECTORS_FILE

STORE_FILE = "domains.json"


class Domains:
    """Recommenders of several domains on one loaded encoder."""

    def __init__(self, encoder: str | Path) -> None:
        self.base, parts = open_encoder(encoder)
        self.recommender = Recommender(parts.encoder, parts.sequence_encoder).eval()
        self.peft: PeftModel | None = None
        self.in_use = ""
        self._layers: list[BaseTunerLayer | ModulesToSaveWrapper] = []
        self._rankers: dict[str, DomainRanker] = {}

    def __len__(self) -> int:
        return len(self._rankers)

    def add(self, name: str, recommender: str | Path) -> None:
        """Loads the adapter of a domain; VitrineError if it was trained on another base."""
        if name in self._rankers:
            raise VitrineError(
                f"there is a domain {name!r} already; remove it, or use another name"
            )
        artifact = open_adapter(recommender)
        check_base(artifact, self.base)
        adapter = str(artifact.path / ADAPTER)
        if self.peft is None:
            self.peft = PeftModel.from_pretrained(
                self.recommender,  # pyright: ignore[reportArgumentType]
                adapter,
                adapter_name=name,
            )
        else:
            self.peft.load_adapter(adapter, adapter_name=name)
        expose_convolutions(self.recommender)
        self._rankers[name] = DomainRanker(self, name, artifact)
        self._refresh_layers(self.in_use or name)

    def ranker(self, name: str) -> "DomainRanker":
        """The ranker of a domain; rankers of several domains may be used in turn."""
        if name not in self._rankers:
            raise VitrineError(f"there is no domain {name!r}.{did_you_mean(name, self._rankers)}")
        return self._rankers[name]

    def remove(self, name: str) -> None:
        self.ranker(name)
        assert self.peft is not None
        if len(self._rankers) > 1:
            others = [other for other in self._rankers if other != name]
            self.swap_adapter(others[0])
            self.peft.delete_adapter(name)
            self._refresh_layers(others[0])
        else:
            self.peft.unload()
            self.peft, self.in_use, self._layers = None, "", []
        del self._rankers[name]

    def _refresh_layers(self, name: str) -> None:
        """Finds the layers with adapters after a change of them, and activates that of `name`."""
        self.recommender.eval().requires_grad_(False)
        kinds = (BaseTunerLayer, ModulesToSaveWrapper)
        self._layers = [m for m in self.recommender.modules() if isinstance(m, kinds)]
        self.in_use = ""
        self.swap_adapter(name)

    def swap_adapter(self, name: str) -> None:
        """Swaps in the adapter of a domain; VitrineError if it was removed."""
        self.ranker(name)
        if name == self.in_use:
            return
        # PEFT's `set_adapter` also sets `requires_grad` of every layer and adapter, which takes longer.
        # Nothing is trained here, so a name in each layer suffices.
        for layer in self._layers:
            layer._active_adapter = [name] if isinstance(layer, BaseTunerLayer) else name
        self.in_use = name


class DomainRanker(Ranker):
    """A ranker that activates its adapter before each use of the shared base."""

    def __init__(self, domains: Domains, name: str, artifact: Artifact) -> None:
        vectors = open_vectors(artifact.path / VECTORS_FILE)
        super().__init__(domains.recommender, vectors, serves_repeats(artifact.manifest["config"]))
        self.domains, self.name = domains, name

    def swap_adapter(self) -> None:
        """Swaps in its adapter, if another domain's is active."""
        self.domains.swap_adapter(self.name)

    def user_states(self, histories: Sequence[History]) -> Tensor:
        self.swap_adapter()
        return super().user_states(histories)

    def image_vectors(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        self.swap_adapter()
        return super().image_vectors(images)


def open_adapter(recommender: str | Path) -> Artifact:
    """A verified recommender artifact that consists of an adapter of a shared base alone."""
    artifact = open_artifact(Path(recommender), kind="recommender")
    config: dict[str, Any] = artifact.manifest["config"]
    own = config["sequence"] or config["bag_of_words"]
    if config["transfer"] != "lora" or config["features"] != "content" or own:
        description = f"transfer {config['transfer']}, features {config['features']}"
        description += ", words" if config["bag_of_words"] else ""
        description += ", a sequence encoder of its own" if config["sequence"] else ""
        raise VitrineError(
            f"{recommender} was fitted with {description}; domains that share a base are fitted with "
            "--transfer lora --features content"
        )
    return artifact


@dataclass
class DomainStore:
    """The content of `domains.json`."""

    folder: Path
    encoder: str = ""
    in_use: str = ""
    recommenders: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: str | Path, new: bool = False) -> "DomainStore":
        """Reads the store of a folder; with `new`, an empty one if there is none yet."""
        path = Path(folder) / STORE_FILE
        if path.exists():
            with one_line_errors(f"{path} is no list of domains", "remove it, and add them again"):
                return cls(Path(folder), **json.loads(path.read_text(encoding="utf8")))
        if not new:
            raise VitrineError(
                f"{folder} holds no domains; add one: vitrine domains add NAME RECOMMENDER "
                f"--store {folder}"
            )
        return cls(Path(folder))

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        values = asdict(self)
        del values["folder"]
        partial = self.folder / f".{STORE_FILE}.{os.getpid()}"
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf8")
        replace_file(partial, self.folder / STORE_FILE)

    def add(self, name: str, recommender: str | Path) -> None:
        """Adds a domain; the first one sets the shared base, and is the active one."""
        if name in self.recommenders:
            raise VitrineError(
                f"there is a domain {name!r} already; remove it, or use another name"
            )
        artifact = open_adapter(recommender)
        if self.encoder:
            check_base(artifact, open_artifact(Path(self.encoder), kind="encoder"))
        else:
            self.encoder = str(artifact.parent("encoder").resolve())
        self.recommenders[name] = str(artifact.path.resolve())
        self.in_use = self.in_use or name

    def remove(self, name: str) -> None:
        """Removes a domain from the store; its files stay."""
        self.path_of(name)
        del self.recommenders[name]
        if self.in_use == name:
            self.in_use = next(iter(self.recommenders), "")
        if not self.recommenders:
            self.encoder = ""

    def use(self, name: str) -> None:
        self.path_of(name)
        self.in_use = name

    def path_of(self, name: str = "") -> str:
        """The folder of a domain's recommender, by default that of the active domain."""
        domain = name or self.in_use
        if domain not in self.recommenders:
            raise VitrineError(
                f"there is no domain {domain!r} in {self.folder}.{did_you_mean(domain, self.recommenders)}"
            )
        return self.recommenders[domain]

    def open(self) -> Domains:
        """Loads all domains on one base."""
        if not self.recommenders:
            raise VitrineError(f"{self.folder} holds no domains; add one")
        domains = Domains(self.encoder)
        for name, folder in self.recommenders.items():
            domains.add(name, folder)
        return domains
