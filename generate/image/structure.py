"""What of an item's picture is neither its colours nor what surrounds it: its outline and inner edges."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 4
"""Of the structure a side, for each position of the latents."""
CHANNELS = 2 * CELLS**2
"""Numbers that a position of the latents is told: cells of the outline, then cells of the edges."""
MARGIN = 0.04
"""Share of a side next to the frame that is surely ground."""
ROUNDS = 4


def foreground_mask(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the item is in its picture (height, width, 3): bool (height, width).

    GrabCut (Rother et al. 2004): what differs in colour from the picture's rim and holds together. A
    picture with no such thing is all item: nothing of it counts as ground.
    """
    height, width = picture.shape[:2]
    if picture.reshape(-1, 3).std(0).max() == 0:  # GrabCut would wait for ever
        return np.ones((height, width), np.bool_)
    labels = np.full((height, width), cv2.GC_PR_FGD, np.uint8)
    rim = max(1, round(MARGIN * min(height, width)))
    labels[:rim], labels[-rim:] = cv2.GC_BGD, cv2.GC_BGD
    labels[:, :rim], labels[:, -rim:] = cv2.GC_BGD, cv2.GC_BGD
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    cv2.setRNGSeed(0)  # it begins with k-means
    ground, item = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(bgr, labels, None, ground, item, ROUNDS, cv2.GC_INIT_WITH_MASK)  # pyright: ignore
    mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return mask if mask.any() else np.ones_like(mask)


def structure_map(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], grid: tuple[int, int]
) -> NDArray[np.uint8]:
    """What `grid` positions (rows, columns) of latents are told of a picture: uint8 (CHANNELS, rows,
    columns), the mask and the strength of its edges (Sobel, of lightness) within, by cells."""
    light = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)
    edges = np.minimum(np.hypot(across, down) / 2, 255) * mask
    return np.concatenate([_in_cells(255.0 * mask, grid), _in_cells(edges, grid)])


def _in_cells(values: NDArray[np.floating], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """(height, width) → (CELLS², rows, columns), each the mean over its cell."""
    rows, columns = grid
    size = (columns * CELLS, rows * CELLS)
    small = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    cells = small.reshape(rows, CELLS, columns, CELLS).transpose(1, 3, 0, 2)
    return np.rint(cells.reshape(CELLS**2, rows, columns)).astype(np.uint8)


def seen(structures: NDArray[np.uint8]) -> Tensor:
    """As the denoiser reads them, from -1 to 1; zeros stand for a structure that is not told."""
    return torch.from_numpy(structures.astype(np.float32) / 127.5 - 1)


def around(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], drawn: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The item's own pixels where `mask` says so, and what was drawn around them: (height, width, 3).

    What was drawn is another item of the same outline; where that stands over, what surrounds it is
    drawn on over it (Telea 2004), so that no rim of another colour is left.
    """
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    ground = cv2.inpaint(np.ascontiguousarray(drawn), rim, 3, cv2.INPAINT_TELEA)
    return np.where(mask[:, :, None], picture, ground)
