"""Embeds items with an encoder, in batches of similar length, on one rank or distributed over all."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.catalog import Catalog
from catalog.errors import NonFiniteError
from catalog.progress import track
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.distributed import broadcast_rows, sum_over_ranks, world
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.eval_mode import eval_mode
from pretrain.modalities import Content
from pretrain.shards import is_sharded

BLOCK = 8192
"""Items read at a time."""
BATCH_TOKENS = 8192
"""Tokens and patches of one forward pass of the towers."""
SMALL_BATCH, LEAST_FILLED = 2048, 0.9
"""Tokens that a forward pass has at least, if there are so many, and filled share of its shortest item."""


def length_sorted_batches(
    loader: ItemContentLoader, items: NDArray[np.int64], batch_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """Batches of items of similar length: items × tokens of the longest ≤ `batch_tokens`.

    A batch of more than `SMALL_BATCH` tokens ends before an item that is shorter than `LEAST_FILLED` of its
    longest, since what is shorter is padded.
    """
    costs = loader.prefetch(items)
    order = np.argsort(costs, kind="stable")[::-1]  # the longest first, so that memory only falls
    falling = costs[order]
    start = 0
    try:
        while start < len(order):
            longest = max(1, int(falling[start]))
            most = max(1, batch_tokens // longest)
            alike = int((falling[start : start + most] >= LEAST_FILLED * longest).sum())
            size = min(most, max(alike, SMALL_BATCH // longest, 1))
            yield items[order[start : start + size]]
            start += size
    finally:
        loader.release()


Batch = tuple[NDArray[np.int64], list[int]]
"""Items of one forward pass, and their rows in the output."""


def synchronized_batches(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """A rank's batches; while another rank has more, a dummy item whose vector is dropped."""
    while True:
        batch = next(batches, None)
        if not sum_over_ranks(torch.tensor(int(batch is not None), device=device)):
            return
        yield (np.zeros(1, dtype=np.int64), []) if batch is None else batch


Labelled = TypeVar("Labelled")
Read = TypeVar("Read")


def read_ahead(batches: Iterable[Read]) -> Iterator[Read]:
    """The same batches; the next one is read in a thread while the current one is in use."""
    source = iter(batches)

    def read() -> Read | None:
        return next(source, None)

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(read)
        while (batch := coming.result()) is not None:
            coming = thread.submit(read)
            yield batch


def on_device(
    batches: Iterable[tuple[Labelled, Content]],
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    ahead: bool = True,
) -> Iterator[tuple[Labelled, Content]]:
    """The batches with their content on `device`, floating-point tensors in `dtype`.

    While a batch is computed the next one is read; on a GPU it is copied as well, on a stream of its own.
    `ahead`: False where `batches` waits for other ranks, which must happen between two computations.
    """
    if ahead:
        batches = read_ahead(batches)
    if device.type != "cuda":
        for label, content in batches:
            yield label, to_device(content, device, dtype)
        return
    copies = torch.cuda.Stream(device)
    copied: tuple[Labelled, Content, Any] | None = None
    for label, content in batches:
        with torch.cuda.stream(copies):
            moved = label, to_device(content, device, dtype), copies.record_event()
        if copied is not None:
            yield _arrived(*copied)
        copied = moved
    if copied is not None:
        yield _arrived(*copied)


def _arrived(label: Labelled, content: Content, copied: Any) -> tuple[Labelled, Content]:
    """Makes the current stream wait for the event `copied`, and the allocator for the current stream."""
    stream = torch.cuda.current_stream()
    stream.wait_event(copied)
    for inputs in content.values():
        for value in inputs.values():
            value.record_stream(stream)
    return label, content


@torch.no_grad()
def embed_items(
    encoder: ItemEncoder,
    loader: ItemContentLoader,
    out: NDArray[np.float32],
    *,
    items: NDArray[np.int64] | None = None,
    of: Callable[[ItemVectors], Tensor] = attrgetter("item"),
    batch_tokens: int = BATCH_TOKENS,
    title: str = "Embedding items",
    progress: bool = True,
    in_step: bool = False,
) -> None:
    """Writes the vectors of `items` (by default all) into `out`, (len(items), width), in their order.

    `of` selects a field of `ItemVectors`; `out` then has the shape of that field. `in_step`: all ranks
    call this, each with items of its own, and take the same number of forward passes (ZeRO-3).
    Raises NonFiniteError where an item's vector is not finite (see `check_finite`).
    """
    if items is None:
        items = np.arange(loader.catalog.num_items)
    device = next(encoder.parameters()).device
    starts = range(0, len(items), BLOCK)

    def batches() -> Iterator[Batch]:
        for start in track(starts, title, shown=progress and len(items) > BLOCK):
            block = items[start : start + BLOCK]
            rows = {int(item): start + row for row, item in enumerate(block)}
            for batch in length_sorted_batches(loader, block, batch_tokens):
                yield batch, [rows[int(item)] for item in batch]

    with eval_mode(encoder):
        chosen = synchronized_batches(batches(), device) if in_step else batches()
        read = ((batch, loader.read(batch[0])) for batch in chosen)
        for (batch, rows), content in on_device(read, device, encoder.dtype, ahead=not in_step):
            encoded = encoder(content)
            check_finite(encoded, encoder, loader.catalog, batch)
            vectors = of(encoded).float().cpu().numpy()
            out[rows] = vectors[: len(rows)]


def check_finite(
    encoded: ItemVectors, encoder: ItemEncoder, catalog: Catalog, items: NDArray[np.int64]
) -> None:
    """Raises NonFiniteError for a vector of `items` that is not finite, with its item and modality."""
    bad = ~encoded.item.isfinite().all(dim=1)
    if not bad.any():
        return
    row = int(bad.nonzero()[0])
    broken = ~encoded.modality_embeddings[row].isfinite().all(dim=1) & encoded.present[row]
    names_broken = [
        name
        for name, is_broken in zip(encoder.modalities, broken.tolist(), strict=True)
        if is_broken
    ]
    where = (
        f"its {names_broken[0]} (tower or projection)"
        if names_broken
        else "the fusion of its modalities"
    )
    raise NonFiniteError(
        f"the vector of item {catalog.items[int(items[row])]['item_id']!r} is not finite: {where} gives "
        "nan or infinity; look at this item's content and at the encoder's weights"
    )


@torch.no_grad()
def embed_on_ranks(encoder: ItemEncoder, loader: ItemContentLoader, out: Tensor) -> None:
    """Writes the vectors of all items into `out`, (num_items, width), on every rank.

    All ranks call it: each embeds a share of the items and broadcasts it to the others.
    """
    rank, ranks = world()
    edges = [len(out) * each // ranks for each in range(ranks + 1)]
    mine = np.arange(edges[rank], edges[rank + 1])
    own = np.empty((len(mine), out.shape[1]), dtype=np.float32)
    in_step = ranks > 1 and is_sharded(encoder)
    embed_items(encoder, loader, own, items=mine, progress=False, in_step=in_step)
    out[edges[rank] : edges[rank + 1]] = torch.from_numpy(own).to(out)
    for source in range(ranks):
        broadcast_rows(out[edges[source] : edges[source + 1]], source)
