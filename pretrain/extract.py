"""Extracts embeddings from single towers, at any layer and pooling: an encoder's own, or any model's."""

from dataclasses import replace

from torch import Tensor, nn

from catalog.catalog import Catalog
from catalog.errors import VitrineError, did_you_mean
from pretrain.artifact import EncoderBundle
from pretrain.config import ExtractConfig
from pretrain.devices import Compute
from pretrain.modalities import MODALITIES, Content, Modality, Processor
from pretrain.towers.projection import scatter_present


class Extractors:
    """The extractors of one pass, by name. Those of the encoder's towers share the encoder's inputs."""

    def __init__(
        self, settings: dict[str, ExtractConfig], bundle: EncoderBundle | None, catalog: Catalog
    ) -> None:
        self.names = list(settings)
        self.kinds: dict[str, Modality] = {}
        """Modalities of extractors with a tower of their own; read beside the encoder's modalities."""
        self.processors: dict[str, Processor] = {}
        self._reading: dict[str, tuple[str, Modality, nn.Module]] = {}
        for name, config in settings.items():
            if name == "item_vectors":
                raise VitrineError("an extractor cannot be called item_vectors; use another name")
            if config.modality:
                self._reading[name] = self._of_encoder(name, config, bundle)
                continue
            if not config.model and config.kind != "features":
                raise VitrineError(
                    f"extract.{name} names no model, and an untrained tower's vectors mean nothing; "
                    f"set extract.{name}.model, or extract.{name}.modality to a modality of the encoder"
                )
            kind, processor = MODALITIES[config.kind].new(
                replace(config, source=config.source or config.kind), catalog
            )
            own = f"extract.{name}"
            self.kinds[own] = kind
            if processor is not None:
                self.processors[own] = processor
            tower = kind.build_tower(config.model).eval()
            self._reading[name] = (own, kind, tower)

    @staticmethod
    def _of_encoder(
        name: str, config: ExtractConfig, bundle: EncoderBundle | None
    ) -> tuple[str, Modality, nn.Module]:
        if bundle is None:
            raise VitrineError(
                f"extract.{name}.modality is {config.modality!r}, but no encoder was given"
            )
        encoder = bundle.encoder
        if config.modality not in encoder.kinds:
            raise VitrineError(
                f"extract.{name}.modality is {config.modality!r}, which the encoder does not read."
                f"{did_you_mean(config.modality, encoder.kinds)}"
            )
        spec = encoder.kinds[config.modality].spec
        if "tower" in spec and config.pooling not in ("auto", spec["pooling"]):
            spec = {key: value for key, value in spec.items() if key != "width"}  # it may change
            spec["pooling"] = config.pooling
        if "tower" in spec:
            spec = spec | {"layer": config.layer}
        kind = MODALITIES[spec["kind"]](spec)  # pyright: ignore[reportArgumentType]
        return config.modality, kind, encoder.towers[encoder.tower_name(config.modality)]

    def place(self, compute: Compute) -> None:
        """Moves all towers to the device, in the precision."""
        for _, _, tower in self._reading.values():
            compute.place_for_inference(tower)

    def width(self, name: str) -> int:
        """Width of this extractor's vectors."""
        return self._reading[name][1].width

    def __call__(self, name: str, content: Content) -> tuple[Tensor, Tensor]:
        """Vectors (n, width), zero where the modality is missing, and bool (n,), where it is present."""
        modality, kind, tower = self._reading[name]
        inputs = {key: value for key, value in content[modality].items() if key != "present"}
        present = content[modality]["present"]
        return scatter_present(kind.encode(tower, inputs), present), present
