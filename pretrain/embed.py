"""A catalog to item vectors: `vitrine embed`, and what fine-tuning calls.

Items are read in blocks; within a block they go through the towers sorted by length, so many at a
time as fit a budget of tokens, and what was made is on disk before the next block begins. Nothing
grows with the catalog but the files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catalog.artifacts import Artifact, open_artifact, write_artifact
from catalog.atomic_write import signal_progress
from catalog.catalog import Catalog, load_catalog
from catalog.errors import NonFiniteError, VitrineError
from catalog.memory import release_pages
from catalog.progress import track
from pretrain.artifact import EncoderBundle, open_encoder
from pretrain.config import EmbedConfig
from pretrain.content_loader import ItemContentLoader, to_device
from pretrain.distributed import broadcast_rows, sum_over_ranks, world
from pretrain.encoder import ItemEncoder, ItemVectors
from pretrain.extract import Extractors
from pretrain.modalities import Content
from pretrain.shards import is_sharded
from pretrain.store import VectorWriter, open_vectors, shared_array
from pretrain.work import check_claimed, claim_work, learned_request

VECTORS_FILE = "item_vectors.safetensors"
IDS_FILE = "item_ids.parquet"
HASHES_FILE = "content_hashes.npy"
BLOCK = 8192
"""Items read at a time."""
BATCH_TOKENS = 8192
"""Tokens and patches that go through the towers at a time."""


def batches_of(
    reader: ItemContentLoader, items: NDArray[np.int64], batch_tokens: int
) -> Iterator[NDArray[np.int64]]:
    """The items in batches of like length: items × the longest's tokens ≤ `batch_tokens`."""
    costs = reader.prefetch(items)
    order = np.argsort(costs, kind="stable")[::-1]  # the longest first: memory only falls
    start = 0
    try:
        while start < len(order):
            size = max(1, batch_tokens // max(1, int(costs[order[start]])))
            yield items[order[start : start + size]]
            start += size
    finally:
        reader.release()


Batch = tuple[NDArray[np.int64], list[int]]
"""Items that go through the towers at once, and their places in what is written."""


def passes_in_step(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """A rank's batches, and, while another has more, an item that is written nowhere."""
    while True:
        batch = next(batches, None)
        if not sum_over_ranks(torch.tensor(int(batch is not None), device=device)):
            return
        yield (np.zeros(1, dtype=np.int64), []) if batch is None else batch


@torch.no_grad()
def embed_items(
    encoder: ItemEncoder,
    reader: ItemContentLoader,
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

    `of` says which of what the encoder makes: another part has another shape behind its first place.
    `in_step`: all ranks call this, each with items of its own, and take as many passes (ZeRO-3).
    Raises NonFiniteError where an item's vector is not (see `check_finite`).
    """
    if items is None:
        items = np.arange(reader.catalog.num_items)
    was_training = encoder.training
    device = next(encoder.parameters()).device
    encoder.eval()
    starts = range(0, len(items), BLOCK)

    def batches() -> Iterator[Batch]:
        for start in track(starts, title, shown=progress and len(items) > BLOCK):
            block = items[start : start + BLOCK]
            places = {int(item): start + place for place, item in enumerate(block)}
            for batch in batches_of(reader, block, batch_tokens):
                yield batch, [places[int(item)] for item in batch]

    for batch, places in passes_in_step(batches(), device) if in_step else batches():
        content = to_device(reader.read(batch), device, encoder.dtype)
        encoded = encoder(content)
        check_finite(encoded, encoder, reader.catalog, batch)
        vectors = of(encoded).float().cpu().numpy()
        out[places] = vectors[: len(places)]
    encoder.train(was_training)


def check_finite(
    encoded: ItemVectors, encoder: ItemEncoder, catalog: Catalog, items: NDArray[np.int64]
) -> None:
    """Raises NonFiniteError where a vector of `items` is not, and names the first and its modality."""
    strange = ~encoded.item.isfinite().all(dim=1)
    if not strange.any():
        return
    row = int(strange.nonzero()[0])
    broken = ~encoded.modality_embeddings[row].isfinite().all(dim=1) & encoded.present[row]
    told = [
        name
        for name, is_broken in zip(encoder.modalities, broken.tolist(), strict=True)
        if is_broken
    ]
    where = f"its {told[0]} (tower or projection)" if told else "the fusion of its modalities"
    raise NonFiniteError(
        f"the vector of item {catalog.items[int(items[row])]['item_id']!r} is not finite: {where} gives "
        "nan or infinity; look at this item's content and at the encoder's weights"
    )


@torch.no_grad()
def embed_on_ranks(encoder: ItemEncoder, reader: ItemContentLoader, out: Tensor) -> None:
    """Writes the vectors of all items into `out`, (num_items, width), on every rank.

    All ranks call it: each reads a share of the items through the towers and sends it to the others.
    """
    rank, ranks = world()
    edges = [len(out) * each // ranks for each in range(ranks + 1)]
    mine = np.arange(edges[rank], edges[rank + 1])
    found = np.empty((len(mine), out.shape[1]), dtype=np.float32)
    in_step = ranks > 1 and is_sharded(encoder)
    embed_items(encoder, reader, found, items=mine, progress=False, in_step=in_step)
    out[edges[rank] : edges[rank + 1]] = torch.from_numpy(found).to(out)
    for source in range(ranks):
        broadcast_rows(out[edges[source] : edges[source + 1]], source)


def write_ids(
    folder: Path, catalog: Catalog, present: dict[str, NDArray[np.bool_]] | None = None
) -> None:
    """The ids the rows of the stores belong to, in the rows' order; `present`: who has which vector."""
    columns = {"item_id": catalog.items.data.column("item_id")}
    for name, mask in (present or {}).items():
        columns[f"has_{name}"] = pa.chunked_array([pa.array(mask)])
    pq.write_table(pa.table(columns), folder / IDS_FILE, row_group_size=BLOCK)


def content_hashes(content: Content) -> NDArray[np.uint64]:
    """uint64 (n, 2): equal for items that hold the same, read the same way."""
    num_items = len(next(iter(content.values()))["present"])
    digests = [hashlib.blake2b(digest_size=16) for _ in range(num_items)]
    for name, inputs in content.items():
        values = [value.numpy() for key, value in inputs.items() if key != "present"]
        mask = inputs.get("attention_mask")
        lengths = None if mask is None else mask.sum(dim=1).tolist()
        for row, item in enumerate(np.flatnonzero(inputs["present"].numpy())):
            digests[item].update(name.encode())
            for value in values:
                digests[item].update(
                    (value[row, : lengths[row]] if lengths else value[row]).tobytes()
                )
    raw = b"".join(digest.digest() for digest in digests)
    return np.frombuffer(raw, dtype="<u8").reshape(num_items, 2)


def vectors_made_with(
    folder: str | Path, encoder: Artifact, catalog: Catalog
) -> NDArray[np.float32]:
    """The item vectors of a `vectors` artifact, (num_items, width), memory-mapped.

    VitrineError where another encoder made them, or of other content than the catalog's.
    """
    artifact = open_artifact(Path(folder), kind="vectors")
    theirs = artifact.manifest["parents"].get("encoder", {}).get("hash")
    if theirs != encoder.hash or artifact.manifest["catalog"] != catalog.fingerprint:
        other = "another catalog" if theirs == encoder.hash else "another encoder"
        raise VitrineError(
            f"the vectors {folder} were made with {other} than {encoder.path} and {catalog.folder}; "
            "make them again with vitrine embed"
        )
    return open_vectors(artifact.path / VECTORS_FILE)


def check_vectors(vectors: NDArray[np.floating], catalog: Catalog, folder: str | Path) -> None:
    """Raises NonFiniteError where one of the `vectors` (num_items, width) read from `folder` is not."""
    strange = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(strange):
        raise NonFiniteError(
            f"the vectors {folder} hold nan or infinity for {len(strange):,} items, first for "
            f"{catalog.items[int(strange[0])]['item_id']!r}; make them again with vitrine embed"
        )


def run_embedding(config: EmbedConfig, output: Path) -> Path:
    """Writes a `vectors` artifact: the stores and the ids of their rows.

    Started again after a stop, it goes on where it was. Where `output` already holds vectors of the
    same encoder, only items whose content changed go through the towers. Under torchrun the blocks
    are shared out over the processes.
    """
    from accelerate import PartialState

    # Nobody gives up on others that have more left to do.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    catalog = load_catalog(config.catalog)
    parts: EncoderBundle | None = None
    parents: dict[str, Path] = {}
    if config.encoder:
        artifact, parts = open_encoder(config.encoder)
        parents["encoder"] = artifact.path
    elif not config.extract:
        raise VitrineError(
            "nothing to embed with: pass the folder that `vitrine pretrain` made (--encoder FOLDER), "
            "or name a model (--extract.NAME.model MODEL --extract.NAME.source text)"
        )
    extractors = Extractors(config.extract, parts, catalog)
    request = learned_request("vectors", asdict(config), parents, catalog.fingerprint)
    device = torch.device(state.device or "cpu")

    def begin() -> EmbeddingPass:
        return EmbeddingPass(config, catalog, parts, extractors, output, request, device)

    # One process makes the work folder; the others open what is there.
    first = begin() if state.is_main_process else None
    state.wait_for_everyone()
    check_claimed(work_of(output), request, state.process_index)
    pass_ = first or begin()
    pass_.run(state.process_index, state.num_processes)
    state.wait_for_everyone()
    if state.is_main_process:
        with write_artifact(
            output,
            kind="vectors",
            config=asdict(config),
            parents=parents,
            catalog=catalog.fingerprint,
            metrics=pass_.metrics(),
            request=request,
        ) as staging:
            pass_.finish(staging.path)
        shutil.rmtree(pass_.work)  # only now: killed before, the next start finishes it
    state.wait_for_everyone()
    return output


def work_of(output: Path) -> Path:
    """Where the blocks of a pass lie until it is whole."""
    return output.with_name(f"{output.name}.work")


class EmbeddingPass:
    """One pass over a catalog, kept in a work folder until it is whole."""

    def __init__(
        self,
        config: EmbedConfig,
        catalog: Catalog,
        parts: EncoderBundle | None,
        extractors: Extractors,
        output: Path,
        request: str,
        device: torch.device,
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.parts = parts
        self.extractors = extractors
        self.device = device
        self.work = work_of(output)
        kinds = dict(extractors.kinds)
        processors = dict(extractors.processors)
        if parts is not None:
            parts.encoder.eval()
            nn.Module.to(parts.encoder, device)
            kinds = {**parts.encoder.kinds, **kinds}
            processors = {**parts.processors, **processors}
        self.reader = ItemContentLoader(catalog, kinds, processors)
        self.earlier = Earlier.open(output, config, catalog)
        claim_work(self.work, request)
        widths = {name: extractors.width(name) for name in extractors.names}
        if parts is not None:
            widths["item_vectors"] = parts.encoder.config.width
        self.stores = {
            name: VectorWriter(self.work / f"{name}.safetensors", catalog.num_items, width)
            for name, width in widths.items()
        }
        blocks = -(-catalog.num_items // BLOCK)
        self.done = shared_array(self.work / "done.npy", (blocks,), np.uint8)
        if any(store.is_new for store in self.stores.values()):
            self.done[:] = 0  # whatever was done went into another file
        self.hashes = shared_array(self.work / HASHES_FILE, (catalog.num_items, 2), np.uint64)
        self.present = {
            name: shared_array(self.work / f"has_{name}.npy", (catalog.num_items,), np.uint8)
            for name in extractors.names
        }
        self.copied = shared_array(self.work / "copied.npy", (blocks,), np.int64)

    def run(self, rank: int = 0, ranks: int = 1) -> None:
        """Does this process's share of the blocks that are not done."""
        mine = [b for b in range(rank, len(self.done), ranks) if not self.done[b]]
        for block in track(mine, "Embedding items", shown=rank == 0):
            items = np.arange(
                block * BLOCK, min((block + 1) * BLOCK, self.catalog.num_items), dtype=np.int64
            )
            copied = 0
            for batch in batches_of(self.reader, items, self.config.batch_tokens):
                copied += self._embed(batch)
            for store in self.stores.values():
                store.flush()
            self.copied[block] = copied
            for array in (self.hashes, self.copied, *self.present.values()):
                array.flush()
            release_pages(self.hashes)
            self.done[block] = 1
            self.done.flush()
            signal_progress()

    @torch.no_grad()
    def _embed(self, items: NDArray[np.int64]) -> int:
        content = self.reader.read(items)
        hashes = content_hashes(content)
        self.hashes[items] = hashes
        same = self.earlier.copy(items, hashes, self.stores, self.present)
        if same.any():
            items = items[~same]
            if not len(items):
                return int(same.sum())
            content = self.reader.read(items)
        content = to_device(content, self.device)
        if self.parts is not None:
            names = self.parts.encoder.modalities
            encoded = self.parts.encoder({name: content[name] for name in names})
            check_finite(encoded, self.parts.encoder, self.catalog, items)
            self._write("item_vectors", items, encoded.item)
        for name in self.extractors.names:
            vectors, present = self.extractors(name, content)
            self._write(name, items, vectors)
            self.present[name][items] = present.cpu().numpy()
        return int(same.sum())

    def _write(self, name: str, items: NDArray[np.int64], vectors: Tensor) -> None:
        self.stores[name].write(items, vectors.float().cpu().numpy())

    def metrics(self) -> dict[str, int]:
        return {"items": self.catalog.num_items, "copied": int(self.copied.sum())}

    def finish(self, folder: Path) -> None:
        """Puts what was made into the artifact's folder, too."""
        assert self.done.all(), "blocks are missing"
        for store in self.stores.values():
            store.close()
        for name in [*(f"{name}.safetensors" for name in self.stores), HASHES_FILE]:
            try:
                os.link(self.work / name, folder / name)
            except OSError:  # a file system without links
                shutil.copy(self.work / name, folder / name)
        present = {name: mask.astype(bool) for name, mask in self.present.items()}
        write_ids(folder, self.catalog, present)


class Earlier:
    """What an earlier pass of the same encoder left at the same place."""

    def __init__(
        self,
        rows: NDArray[np.int64] | None = None,
        hashes: NDArray[np.uint64] | None = None,
        stores: dict[str, NDArray[np.floating]] | None = None,
        present: dict[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """`rows` int64 (num_items,): where each of today's items was, -1 where it was not."""
        self.rows = rows
        self.hashes = hashes
        self.stores = stores or {}
        self.present = present or {}

    @classmethod
    def open(cls, folder: Path, config: EmbedConfig, catalog: Catalog) -> "Earlier":
        from catalog.artifacts import artifact_hash, open_artifact
        from pretrain.modalities.features import align

        if not (folder / "manifest.json").exists():
            return cls()
        try:
            artifact = open_artifact(folder, kind="vectors")
            known = artifact.manifest["parents"].get("encoder", {}).get("hash")
            wanted = artifact_hash(config.encoder) if config.encoder else None
            told = json.loads(json.dumps(asdict(config)["extract"]))
            if known != wanted or artifact.manifest["config"].get("extract") != told:
                return cls()
            ids = pq.read_table(folder / IDS_FILE)
            rows = align(folder, ids["item_id"].combine_chunks(), catalog)
        except VitrineError:  # damaged, or of other items altogether: made anew
            return cls()
        stores = {path.stem: open_vectors(path) for path in folder.glob("*.safetensors")}
        present = {
            name.removeprefix("has_"): ids[name].to_numpy()
            for name in ids.column_names
            if name.startswith("has_")
        }
        return cls(rows, np.load(folder / HASHES_FILE, mmap_mode="r"), stores, present)

    def copy(
        self,
        items: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        stores: dict[str, VectorWriter],
        present: dict[str, np.memmap],
    ) -> NDArray[np.bool_]:
        """Copies what has not changed; bool (n,): which of the items that were."""
        if self.rows is None or self.hashes is None:
            return np.zeros(len(items), dtype=bool)
        rows = self.rows[items]
        same = (rows >= 0) & (self.hashes[np.maximum(rows, 0)] == hashes).all(axis=1)
        if same.any():
            for name, store in stores.items():
                store.write(items[same], np.asarray(self.stores[name][rows[same]]))
            for name, mask in present.items():
                mask[items[same]] = self.present[name][rows[same]]
        return same
