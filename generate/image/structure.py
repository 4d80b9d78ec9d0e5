"""Structure condition of an image: foreground mask and edges, without colours or background; and compositing.

The mask also separates the item from its background for creative mode, where `composite` sets the item's
own pixels into a generated image.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 4
"""Structure cells per side of each latent position."""
CHANNELS = 2 * CELLS**2
"""Structure channels of each latent position: cells of the mask, then cells of the edges."""
MARGIN = 0.04
"""Fraction of a side along the image border that is assumed to be background."""
ITERATIONS = 4


def foreground_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Foreground mask of an item's image (height, width, 3): bool (height, width).

    GrabCut (Rother et al. 2004), initialised with the image border as background. An image without
    such a foreground is all foreground.
    """
    height, width = image.shape[:2]
    if image.reshape(-1, 3).std(0).max() == 0:  # GrabCut would not terminate
        return np.ones((height, width), np.bool_)
    labels = np.full((height, width), cv2.GC_PR_FGD, np.uint8)
    rim = max(1, round(MARGIN * min(height, width)))
    labels[:rim], labels[-rim:] = cv2.GC_BGD, cv2.GC_BGD
    labels[:, :rim], labels[:, -rim:] = cv2.GC_BGD, cv2.GC_BGD
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    cv2.setRNGSeed(0)  # GrabCut starts with k-means
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr, labels, None, background, foreground, ITERATIONS, cv2.GC_INIT_WITH_MASK)  # pyright: ignore
    mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return mask if mask.any() else np.ones_like(mask)


def structure_map(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], grid: tuple[int, int]
) -> NDArray[np.uint8]:
    """Structure of an image for a `grid` (rows, columns) of latents: uint8 (CHANNELS, rows, columns).

    The mask, and the edge strength within it (Sobel filter of the lightness), both averaged over cells.
    """
    lightness = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(lightness, cv2.CV_32F, 1, 0), cv2.Sobel(lightness, cv2.CV_32F, 0, 1)
    edges = np.minimum(np.hypot(across, down) / 2, 255) * mask
    return np.concatenate([_mean_over_cells(255.0 * mask, grid), _mean_over_cells(edges, grid)])


def _mean_over_cells(values: NDArray[np.floating], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width) → (CELLS², rows, columns), each the mean over its cell."""
    rows, columns = grid
    size = (columns * CELLS, rows * CELLS)
    small = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    cells = small.reshape(rows, CELLS, columns, CELLS).transpose(1, 3, 0, 2)
    return np.rint(cells.reshape(CELLS**2, rows, columns)).astype(np.uint8)


def normalize(structures: NDArray[np.uint8]) -> Tensor:
    """Scales structures to the denoiser's input, float32 from -1 to 1; zeros mean a missing condition."""
    return torch.from_numpy(structures.astype(np.float32) / 127.5 - 1)


def without_item(generated: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A generated image (height, width, 3) without the item that it shows, of the outline `mask`, which may
    be of another size.

    It is removed by inpainting over the mask and a rim around it (Telea 2004), so that no rim of another
    colour is left around the item that takes its place.
    """
    height, width = generated.shape[:2]
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0
    rim = cv2.dilate(covered.astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(np.ascontiguousarray(generated), rim, 3, cv2.INPAINT_TELEA)  # pyright: ignore[reportReturnType]


def composite(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], background: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The image's pixels inside `mask`, those of `background` outside; all of one height and width."""
    return np.where(mask[:, :, None], image, background)
