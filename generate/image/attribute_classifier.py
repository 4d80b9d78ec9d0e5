"""An encoder that no picture was conditioned on: it learns the catalog's own labels from its pictures, and
to recall them; is checked on items held out, and then says what drawn pictures look like."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.images import fit_image
from catalog.progress import track
from generate.attributes import attribute_columns
from pretrain.hub import read_image_normalization, read_model
from pretrain.modalities.image import normalize_pixels

SIZE = 64
"""Pixels a side at which it looks."""
LEAST = 5
"""Pictures of which a label is known at all; rarer ones are not told apart."""
HELD_OUT = 0.2
"""Share of the pictures it is checked on."""
MOST_APART = 0.5
"""Share of the pictures that are kept from it at most."""
MOST = 20_000
"""Pictures that it learns from or is checked on, at most."""
BATCH, AT_ONCE = 64, 256
RECALLED = 8
"""Pixels a side of the small picture it recalls: a shop's labels need not name colours and layout, of which
likeness is made as well."""
RECALL_WEIGHT = 10.0
"""Of the square error of what is recalled, from -1 to 1, beside the labels' cross-entropies."""


class ImageEncoder(Protocol):
    """An encoder of pictures."""

    def features(self, pictures: Sequence[Any]) -> Tensor:
        """Pictures (PIL's, or uint8 (height, width, 3)) of any size → float32 (pictures, width)."""
        ...


class ImageAttributeClassifier(ModelMixin, ConfigMixin):
    """A small convolutional network with a classifier for each of the catalog's attributes on top, and a
    map back to a small picture."""

    @register_to_config
    def __init__(self, labels: dict[str, list[str]], width: int = 48) -> None:
        """`labels`: attribute → its values, in the order of the classifier's outputs; attributes in the
        order of their names, whatever order a config file brings them back in."""
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {
                str(place): nn.Linear(widths[-1], len(labels[name]))
                for place, name in enumerate(sorted(labels))
            }
        )
        self.sketch = nn.Linear(widths[-1], 3 * RECALLED**2)

    learned: NDArray[np.int64] = np.empty(0, np.int64)
    """Items whose pictures it was fitted to; not stored with it."""

    @property
    def labels(self) -> dict[str, list[str]]:
        return self.config["labels"]

    def forward(self, pixels: Tensor) -> Tensor:
        """float (batch, 3, SIZE, SIZE) from -1 to 1 → features (batch, width)."""
        return self.body(pixels).mean((2, 3))

    @torch.no_grad()
    def features(self, pictures: Sequence[Any]) -> Tensor:
        """float32 (pictures, width)."""
        parts = torch.arange(len(pictures)).split(AT_ONCE)
        return torch.cat([self(as_pixels([pictures[i] for i in part.tolist()])) for part in parts])

    def read(self, features: Tensor, attribute: str) -> list[str]:
        """The value of an attribute that each picture is most likely of."""
        place = sorted(self.labels).index(attribute)
        best = self.heads[str(place)](features).argmax(-1).tolist()
        return [self.labels[attribute][one] for one in best]


class PretrainedImageEncoder:
    """A Hugging Face image encoder, by name or folder: what it pools, or the mean of its last layer."""

    def __init__(self, name: str) -> None:
        """Raises VitrineError where it cannot be loaded."""
        model = read_model(name, what="image_encoder", dtype=torch.float32).eval()
        self.model = getattr(model, "vision_model", model)  # CLIP's half
        size = getattr(self.model.config, "image_size", None)
        if self.model.main_input_name != "pixel_values" or not isinstance(size, int):
            raise VitrineError(
                f"image_encoder {name!r} ({self.model.config.model_type}) has no image_size or reads none; "
                "name an image encoder"
            )
        self.size = size
        self.mean, self.std = read_image_normalization(name)

    @torch.inference_mode()
    def features(self, pictures: Sequence[Any]) -> Tensor:
        parts = []
        for start in range(0, len(pictures), AT_ONCE // 8):
            squares = squared(pictures[start : start + AT_ONCE // 8], self.size)
            said = self.model(pixel_values=normalize_pixels(squares, self.mean, self.std))
            pooled = getattr(said, "pooler_output", None)
            pooled = said.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)
            parts.append(pooled.float())
        return torch.cat(parts)


def squared(pictures: Sequence[Any], size: int) -> NDArray[np.uint8]:
    """Of any size and shape → (pictures, size, size, 3)."""
    opened = [one if isinstance(one, Image.Image) else Image.fromarray(one) for one in pictures]
    return np.stack([fit_image(one, size) for one in opened])


def as_pixels(pictures: Sequence[Image.Image | NDArray[np.uint8]]) -> Tensor:
    """Of any size and shape → float (pictures, 3, SIZE, SIZE) from -1 to 1."""
    return torch.from_numpy(squared(pictures, SIZE)).movedim(-1, 1).float() / 127.5 - 1


def train_attribute_classifier(
    catalog: Catalog,
    steps: int = 600,
    seed: int = 0,
    progress: bool = True,
    without: NDArray[np.integer] | None = None,
) -> tuple[ImageAttributeClassifier, dict[str, float]]:
    """A judge of this catalog's pictures, and the share of held-out ones whose value it names, by
    attribute. VitrineError where there is nothing to learn.

    Held out are first the items `without`, up to half of all pictures, and a fifth at least: pictures
    that others are compared with should not be those that the features were learned from.
    """
    rng = np.random.default_rng(seed)
    items, pixels = _sample(catalog, rng, progress)
    apart = np.isin(items, [] if without is None else without)
    order = np.argsort(~apart, kind="stable")
    items, pixels = items[order], pixels[order]
    codes, labels = _labels(catalog, items)
    if not labels or len(items) < 2 * LEAST:
        raise VitrineError(
            f"the catalog {catalog.name!r} has too few pictures, or no attribute of which {LEAST} share a "
            "value, to learn a judge from; name an image encoder with --image_encoder."
        )
    checked = round(max(HELD_OUT * len(items), min(MOST_APART * len(items), apart.sum())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = ImageAttributeClassifier(labels)
        judge.learned = items[checked:]
        _fit(judge, pixels[checked:], codes[checked:], steps, rng, progress)
    features = judge.features(list(pixels[:checked]))
    right = {}
    for place, name in enumerate(labels):
        known = np.flatnonzero(codes[:checked, place] >= 0)
        read = judge.read(features[known], name)
        true = [labels[name][code] for code in codes[known, place]]
        right[name] = float(np.mean([a == b for a, b in zip(read, true, strict=True)]))
    return judge, right


def _sample(
    catalog: Catalog, rng: np.random.Generator, progress: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Items in random order, and their pictures (items, SIZE, SIZE, 3)."""
    order = rng.permutation(catalog.num_items)[:MOST]
    found = {}
    for item in track(order.tolist(), "Reading pictures", shown=progress):
        picture = catalog.item_image(item, SIZE)
        if picture is not None:
            found[item] = picture
    empty = np.empty((0, SIZE, SIZE, 3), np.uint8)
    return np.array(list(found), np.int64), np.stack([*found.values()]) if found else empty


def _labels(
    catalog: Catalog, items: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, list[str]]]:
    """The values' places (items, attributes), -1 for rare ones and none; attribute, by name → its values."""
    codes, labels = [], {}
    for name, column in sorted(attribute_columns(catalog), key=lambda found: found[0]):
        values = [column[item].as_py() for item in items.tolist()]
        counts = Counter(value for value in values if value)
        common = sorted(value for value, count in counts.items() if count >= LEAST)
        if len(common) >= 2:
            places = {value: place for place, value in enumerate(common)}
            codes.append([places.get(value, -1) for value in values])
            labels[name] = common
    return np.array(codes, np.int64).reshape(len(codes), len(items)).T, labels


def _fit(
    judge: ImageAttributeClassifier,
    pixels: NDArray[np.uint8],
    codes: NDArray[np.int64],
    steps: int,
    rng: np.random.Generator,
    progress: bool,
) -> None:
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    judge.train()
    for _ in track(range(steps), "Learning to judge", shown=progress):
        rows = rng.integers(len(pixels), size=BATCH)
        seen = as_pixels(list(pixels[rows]))
        if rng.random() < 0.5:
            seen = seen.flip(-1)
        across, down = rng.integers(-4, 5, size=2).tolist()
        seen = seen.roll((down, across), (2, 3))
        features = judge(seen)
        small = F.adaptive_avg_pool2d(seen, RECALLED)
        loss = RECALL_WEIGHT * F.mse_loss(judge.sketch(features), small.flatten(1))
        for place in range(codes.shape[1]):
            true = torch.from_numpy(codes[rows, place])
            if (true >= 0).any():
                said = judge.heads[str(place)](features)
                loss = loss + F.cross_entropy(said, true, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    judge.eval()
