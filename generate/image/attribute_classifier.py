"""An image attribute classifier: a small CNN trained on the catalog's own labels, to score generated images.

No generator is conditioned on it. It also reconstructs a small copy of its input, so that its features hold
colours and layout that no label names; its accuracy on held-out items is reported.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from catalog.progress import track
from generate.attributes import attribute_columns
from generate.image.image_encoder import AnyImage, to_squares

SIZE = 64
"""Side in pixels of its input."""
MIN_IMAGES = 5
"""Images with a label value, at least; rarer values are not classes."""
HELD_OUT = 0.2
"""Fraction of the images held out for its accuracy, at least."""
MAX_HELD_OUT = 0.5
"""Fraction of the images held out, at most."""
MAX_IMAGES = 20_000
"""Images used for training and accuracy, at most."""
TRAIN_BATCH, ENCODE_BATCH = 64, 256
RECONSTRUCTED_SIZE = 8
"""Side in pixels of the reconstruction."""
RECONSTRUCTION_WEIGHT = 10.0
"""Weight of the reconstruction's squared error, of values from -1 to 1, beside the cross-entropies."""


class ImageAttributeClassifier(ModelMixin, ConfigMixin):
    """A small convolutional network with a linear head for each of the catalog's attributes, and one that
    reconstructs a small image."""

    @register_to_config
    def __init__(self, labels: dict[str, list[str]], width: int = 48) -> None:
        """`labels`: attribute → its values, in the order of the head's outputs; heads are in the order of
        the attributes' names, whatever order a config file returns them in."""
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(8, outputs)]
            layers += [nn.GELU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {
                str(index): nn.Linear(widths[-1], len(labels[name]))
                for index, name in enumerate(sorted(labels))
            }
        )
        self.reconstruct = nn.Linear(widths[-1], 3 * RECONSTRUCTED_SIZE**2)

    training_items: NDArray[np.int64] = np.empty(0, np.int64)
    """Rows of the items it was trained on; not saved with it."""

    @property
    def labels(self) -> dict[str, list[str]]:
        return self.config["labels"]

    def forward(self, pixels: Tensor) -> Tensor:
        """float (batch, 3, SIZE, SIZE) from -1 to 1 → features (batch, width)."""
        return self.body(pixels).mean((2, 3))

    @torch.no_grad()
    def features(self, images: Sequence[AnyImage]) -> Tensor:
        """float32 (images, width)."""
        parts = torch.arange(len(images)).split(ENCODE_BATCH)
        return torch.cat([self(to_pixels([images[i] for i in part.tolist()])) for part in parts])

    def classify(self, features: Tensor, attribute: str) -> list[str]:
        """The most likely value of an attribute for each image."""
        index = sorted(self.labels).index(attribute)
        best = self.heads[str(index)](features).argmax(-1).tolist()
        return [self.labels[attribute][value] for value in best]


def to_pixels(images: Sequence[AnyImage]) -> Tensor:
    """Images of any size → float (images, 3, SIZE, SIZE) from -1 to 1."""
    return torch.from_numpy(to_squares(images, SIZE)).movedim(-1, 1).float() / 127.5 - 1


def train_attribute_classifier(
    catalog: Catalog,
    steps: int = 600,
    seed: int = 0,
    progress: bool = True,
    held_out: NDArray[np.integer] | None = None,
) -> tuple[ImageAttributeClassifier, dict[str, float]]:
    """Trains a classifier on this catalog's images; returns it and its held-out accuracy by attribute.

    The items `held_out` are held out first, up to half of all images, and a fifth of all at least:
    reference images should not be those that the features were trained on. Raises VitrineError where
    there is nothing to train on.
    """
    rng = np.random.default_rng(seed)
    items, pixels = _read_images(catalog, rng, progress)
    reserved = np.isin(items, [] if held_out is None else held_out)
    order = np.argsort(~reserved, kind="stable")
    items, pixels = items[order], pixels[order]
    codes, labels = _labels(catalog, items)
    if not labels or len(items) < 2 * MIN_IMAGES:
        raise VitrineError(
            f"the catalog {catalog.name!r} has too few images, or no attribute of which {MIN_IMAGES} share "
            "a value, to train an attribute classifier on; name an image encoder with --image_encoder."
        )
    number = round(max(HELD_OUT * len(items), min(MAX_HELD_OUT * len(items), reserved.sum())))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = ImageAttributeClassifier(labels)
        classifier.training_items = items[number:]
        _fit(classifier, pixels[number:], codes[number:], steps, rng, progress)
    features = classifier.features(list(pixels[:number]))
    accuracy = {}
    for column, name in enumerate(labels):
        labelled = np.flatnonzero(codes[:number, column] >= 0)
        predicted = classifier.classify(features[labelled], name)
        true = [labels[name][code] for code in codes[labelled, column]]
        accuracy[name] = float(np.mean([a == b for a, b in zip(predicted, true, strict=True)]))
    return classifier, accuracy


def _read_images(
    catalog: Catalog, rng: np.random.Generator, progress: bool
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Items in random order, and their images (items, SIZE, SIZE, 3)."""
    order = rng.permutation(catalog.num_items)[:MAX_IMAGES]
    images = {}
    for item in track(order.tolist(), "Reading images", shown=progress):
        image = catalog.item_image(item, SIZE)
        if image is not None:
            images[item] = image
    empty = np.empty((0, SIZE, SIZE, 3), np.uint8)
    return np.array(list(images), np.int64), np.stack([*images.values()]) if images else empty


def _labels(
    catalog: Catalog, items: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, list[str]]]:
    """Class indices (items, attributes), -1 for rare values and none; attribute, by name → its classes."""
    codes, labels = [], {}
    for name, column in sorted(attribute_columns(catalog), key=lambda named: named[0]):
        values = [column[item].as_py() for item in items.tolist()]
        counts = Counter(value for value in values if value)
        classes = sorted(value for value, count in counts.items() if count >= MIN_IMAGES)
        if len(classes) >= 2:
            indices = {value: index for index, value in enumerate(classes)}
            codes.append([indices.get(value, -1) for value in values])
            labels[name] = classes
    return np.array(codes, np.int64).reshape(len(codes), len(items)).T, labels


def _fit(
    classifier: ImageAttributeClassifier,
    pixels: NDArray[np.uint8],
    codes: NDArray[np.int64],
    steps: int,
    rng: np.random.Generator,
    progress: bool,
) -> None:
    """Trains on random shifts and flips: cross-entropy of each attribute, and the reconstruction error."""
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    classifier.train()
    for _ in track(range(steps), "Training the attribute classifier", shown=progress):
        rows = rng.integers(len(pixels), size=TRAIN_BATCH)
        images = to_pixels(list(pixels[rows]))
        if rng.random() < 0.5:
            images = images.flip(-1)
        across, down = rng.integers(-4, 5, size=2).tolist()
        images = images.roll((down, across), (2, 3))
        features = classifier(images)
        small = F.adaptive_avg_pool2d(images, RECONSTRUCTED_SIZE)
        error = F.mse_loss(classifier.reconstruct(features), small.flatten(1))
        loss = RECONSTRUCTION_WEIGHT * error
        for column in range(codes.shape[1]):
            true = torch.from_numpy(codes[rows, column])
            if (true >= 0).any():
                logits = classifier.heads[str(column)](features)
                loss = loss + F.cross_entropy(logits, true, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.eval()
