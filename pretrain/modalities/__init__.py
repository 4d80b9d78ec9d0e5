"""The modalities by kind. A new kind: one file here, one line in MODALITIES."""

from pretrain.modalities.attributes import Attributes
from pretrain.modalities.audio import AudioModality
from pretrain.modalities.base import Content, Modality, Processor, Source
from pretrain.modalities.features import Features
from pretrain.modalities.image import ImageModality, ImageSource
from pretrain.modalities.text import Text
from pretrain.modalities.video import Video

MODALITIES: dict[str, type[Modality]] = {
    kind.kind: kind for kind in (Text, ImageModality, AudioModality, Video, Attributes, Features)
}

__all__ = [
    "MODALITIES",
    "Content",
    "ImageModality",
    "ImageSource",
    "Modality",
    "Processor",
    "Source",
    "Text",
]
