"""Audio: a column of paths, encoded by a Hugging Face audio tower through its feature extractor."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from transformers import AutoFeatureExtractor
from transformers.models.auto.auto_mappings import FEATURE_EXTRACTOR_MAPPING_NAMES
from typing_extensions import override

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.video_audio import read_audio
from pretrain.config import ModalityConfig
from pretrain.hub import one_line_errors, read_feature_extractor
from pretrain.modalities.base import (
    Modality,
    Processor,
    TowerModality,
    mask_of,
    present_rows,
    tower_spec,
)
from pretrain.modalities.media import MediaCache, MediaSource

LOUDEST = 32767


class AudioSource(MediaSource):
    def __init__(self, cache: MediaCache, extractor: Any) -> None:
        super().__init__(cache)
        self.extractor = extractor

    def read(self, items: NDArray[np.int64]) -> dict[str, Tensor]:
        present = self.cache.present[items]
        waves = np.asarray(self.cache.values[present_rows(present, items)], dtype=np.float32)
        values = extract_features(self.extractor, list(waves / LOUDEST))
        return {"present": mask_of(present), "values": values}


def extract_features(extractor: Any, waves: list[NDArray[np.float32]]) -> Tensor:
    """The tower's inputs for `waves` of one length: float32 (waves, …)."""
    features = extractor(waves, sampling_rate=extractor.sampling_rate, return_tensors="np")
    return torch.from_numpy(np.asarray(features[extractor.model_input_names[0]])).float()


def feature_shape(extractor: Any, samples: int) -> tuple[int, ...]:
    """Shape of one item's features, also where tensors are fake (`launch.memory_plan`)."""
    with _disable_current_modes():
        return tuple(extract_features(extractor, [np.zeros(samples, dtype=np.float32)]).shape[1:])


class AudioModality(TowerModality):
    kind = "audio"

    @classmethod
    def new(cls, settings: ModalityConfig, catalog: Catalog) -> tuple["AudioModality", Processor]:
        catalog.check_column(settings.source)
        spec = tower_spec(settings)
        if settings.model:
            extractor = read_feature_extractor(settings.model)
        else:
            extractor = _usual_extractor(spec["tower"])
        spec |= {
            "seconds": settings.seconds,
            "sampling_rate": int(extractor.sampling_rate),
            "input": extractor.model_input_names[0],
        }
        kind = cls(spec)
        shape = feature_shape(extractor, kind.samples)
        return kind.with_width(**{spec["input"]: torch.zeros(1, *shape)}), extractor

    @classmethod
    @override
    def sharing(cls, settings: ModalityConfig, owner: Modality) -> Modality:
        shared = super().sharing(settings, owner)
        return cls(shared.spec | {"seconds": settings.seconds})

    @staticmethod
    def load_processor(folder: Path) -> Processor:
        return AutoFeatureExtractor.from_pretrained(folder)

    @property
    @override
    def tokens(self) -> int:
        return round(50 * self.spec["seconds"])  # the frame rate of wav2vec2 and Whisper

    @property
    def samples(self) -> int:
        """Samples of one item."""
        return round(self.spec["sampling_rate"] * self.spec["seconds"])

    def encode(self, tower: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        return self.pooled(tower, **{self.spec["input"]: inputs["values"]})

    def open(self, catalog: Catalog, processor: Processor | None) -> AudioSource:
        assert processor is not None
        rate, column, samples = self.spec["sampling_rate"], self.spec["source"], self.samples

        def decode(path: str) -> NDArray[np.int16]:
            return np.round(read_audio(path, rate, samples) * LOUDEST).astype(np.int16)

        name = f"{column}-{rate}-{samples}"
        cache = MediaCache(catalog, column, name, (samples,), np.int16, decode, "Decoding sound")
        return AudioSource(cache, processor)


def _usual_extractor(tower: dict[str, Any]) -> Any:
    """The default feature extractor of a tower built from a config."""
    name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(tower["model_type"])
    if name is None:
        raise VitrineError(
            f"no feature extractor is known for the audio tower '{tower['model_type']}'; "
            "give `model`, or a model_type such as wav2vec2"
        )
    known = {"num_mel_bins": tower.get("num_mel_bins"), "max_length": tower.get("max_length")}
    if not name.startswith("AST"):
        known = {}
    with one_line_errors(
        f"no {name} can be made for '{tower['model_type']}'", "mend the tower's config"
    ):
        return getattr(transformers, name)(**{k: v for k, v in known.items() if v is not None})
