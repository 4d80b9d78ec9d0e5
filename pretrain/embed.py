"""`vitrine embed`: writes the embedding of every item of a catalog as a `vectors` artifact.

It resumes, and its memory does not grow with the catalog. Items are read in blocks. Within a block they
go through the towers in batches of similar length, and a block goes to disk while the next one is computed.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.artifacts import write_artifact
from catalog.catalog import Catalog, load_catalog
from catalog.errors import VitrineError
from pretrain.artifact import EncoderBundle, open_encoder
from pretrain.block_store import BlockStore
from pretrain.config import EmbedConfig
from pretrain.content_loader import ItemContentLoader
from pretrain.devices import Compute, choose_compute, init_processes
from pretrain.embed_items import BLOCK, check_finite, length_sorted_batches, on_device
from pretrain.extract import Extractors
from pretrain.modalities import Content
from pretrain.previous_embeddings import PreviousEmbeddings
from pretrain.request import result_request
from pretrain.vectors_artifact import HASHES_FILE, content_hashes, write_ids
from pretrain.work import check_claimed, claim_work

ITEM_VECTORS = "item_vectors"
"""The name of the encoder's own embeddings; extractors have other names."""
LEAST_BLOCKS, SMALLEST_BLOCK = 64, 256
"""Blocks of a catalog at least, for processes to share, and items of the smallest one."""


def run_embedding(config: EmbedConfig, output: Path, compute: Compute | None = None) -> Path:
    """Writes a `vectors` artifact: item embeddings, those of the extractors, and the item ids of the rows.

    A run that was stopped resumes. Where `output` already holds embeddings of the same encoder, only items
    whose content changed go through the towers. Under torchrun the processes share the blocks. `compute`:
    device and precision; None: float32 on the GPU where there is one.
    """
    compute = compute or choose_compute()
    state = init_processes(compute.device)
    catalog = load_catalog(config.catalog)
    bundle: EncoderBundle | None = None
    parents: dict[str, Path] = {}
    if config.encoder:
        artifact, bundle = open_encoder(config.encoder)
        parents["encoder"] = artifact.path
    elif not config.extract:
        raise VitrineError(
            "nothing to embed with: pass the folder that `vitrine pretrain` made (--encoder FOLDER), "
            "or name a model (--extract.NAME.model MODEL --extract.NAME.source text)"
        )
    extractors = Extractors(config.extract, bundle, catalog)
    settings = asdict(config) | compute.settings
    request = result_request("vectors", settings, parents, catalog.fingerprint)

    if state.is_main_process:
        claim_work(work_folder_of(output), request)
    state.wait_for_everyone()
    check_claimed(work_folder_of(output), request, state.process_index)
    loader = open_loader(catalog, bundle, extractors)  # together they decode what is not cached

    def open_run() -> EmbeddingRun:
        return EmbeddingRun(config, loader, bundle, extractors, output, compute)

    # The main process creates the files of the work folder; the others open them.
    first = open_run() if state.is_main_process else None
    state.wait_for_everyone()
    run = first or open_run()
    run.run(state.process_index, state.num_processes)
    state.wait_for_everyone()
    if state.is_main_process:
        with write_artifact(
            output,
            kind="vectors",
            config=asdict(config),
            parents=parents,
            catalog=catalog.fingerprint,
            metrics=run.metrics(),
            request=request,
        ) as staging:
            run.save(staging.path)
        shutil.rmtree(run.work)  # only now: after a kill before this line the next run finishes it
    state.wait_for_everyone()
    return output


def open_loader(
    catalog: Catalog, bundle: EncoderBundle | None, extractors: Extractors
) -> ItemContentLoader:
    """What the encoder and the extractors read; encoder and extractor tower share an input."""
    kinds, processors = dict(extractors.kinds), dict(extractors.processors)
    if bundle is not None:
        kinds = {**bundle.encoder.kinds, **kinds}
        processors = {**bundle.processors, **processors}
    return ItemContentLoader(catalog, kinds, processors)


def work_folder_of(output: Path) -> Path:
    """The folder that holds the blocks of a run until it is complete."""
    return output.with_name(f"{output.name}.work")


class EmbeddingRun:
    """One pass over a catalog, stored in a work folder until it is complete."""

    def __init__(
        self,
        config: EmbedConfig,
        loader: ItemContentLoader,
        bundle: EncoderBundle | None,
        extractors: Extractors,
        output: Path,
        compute: Compute,
    ) -> None:
        self.config = config
        self.loader = loader
        self.catalog = catalog = loader.catalog
        self.bundle = bundle
        self.extractors = extractors
        self.compute = compute
        self.work = work_folder_of(output)
        if bundle is not None:
            compute.place_for_inference(bundle.encoder.eval())
        extractors.place(compute)
        self.previous = PreviousEmbeddings.open(output, config, catalog)
        block = int(np.clip(catalog.num_items // LEAST_BLOCKS, SMALLEST_BLOCK, BLOCK))
        self.store = BlockStore(self.work, catalog.num_items, block)
        for name in extractors.names:
            self.store.add_vectors(name, extractors.width(name))
        if bundle is not None:
            self.store.add_vectors(ITEM_VECTORS, bundle.encoder.config.width)
        self.hashes = self.store.add_array(Path(HASHES_FILE).stem, (2,), np.uint64)
        self.copied = self.store.add_array("copied", (), np.uint8)
        self.present = {
            name: self.store.add_array(f"has_{name}", (), np.uint8) for name in extractors.names
        }

    @torch.no_grad()
    def run(self, rank: int = 0, num_ranks: int = 1) -> None:
        """Embeds this process's share of the pending blocks."""

        def embed_block(items: NDArray[np.int64]) -> None:
            device, dtype = self.compute.device, self.compute.weight_dtype
            with self.compute.autocast():
                for rows, content in on_device(self._pending(items), device, dtype):
                    self._embed(rows, content)

        self.store.fill(
            embed_block, "Embedding items", rank=rank, num_ranks=num_ranks, progress=rank == 0
        )

    def _pending(self, block: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Content]]:
        """Batches of the items whose vectors are not copied from the artifact before, with their content."""
        for items in length_sorted_batches(self.loader, block, self.config.batch_tokens):
            content = self.loader.read(items)
            hashes = content_hashes(content)
            self.hashes[items] = hashes
            same = self.previous.copy(items, hashes, self.store.vectors, self.present)
            self.copied[items] = same
            if not same.any():
                yield items, content
            elif not same.all():
                yield items[~same], self.loader.read(items[~same])

    def _embed(self, items: NDArray[np.int64], content: Content) -> None:
        if self.bundle is not None:
            encoder = self.bundle.encoder
            encoded = encoder({name: content[name] for name in encoder.modalities})
            check_finite(encoded, encoder, self.catalog, items)
            self._write(ITEM_VECTORS, items, encoded.item)
        for name in self.extractors.names:
            vectors, present = self.extractors(name, content)
            self._write(name, items, vectors)
            self.present[name][items] = present.cpu().numpy()

    def _write(self, name: str, items: NDArray[np.int64], vectors: Tensor) -> None:
        self.store.vectors[name].write(items, vectors.float().cpu().numpy())

    def metrics(self) -> dict[str, Any]:
        counts = {"items": self.catalog.num_items, "copied": int(self.copied.sum())}
        return {**counts, **self.compute.metrics}

    def save(self, folder: Path) -> None:
        """Links (or copies) the complete files into the artifact's folder."""
        assert self.store.is_complete, "blocks are missing"
        self.store.close()
        for name in [*(f"{name}.safetensors" for name in self.store.vectors), HASHES_FILE]:
            try:
                os.link(self.work / name, folder / name)
            except OSError:  # a file system without links
                shutil.copy(self.work / name, folder / name)
        present = {name: mask.astype(bool) for name, mask in self.present.items()}
        write_ids(folder, self.catalog, present)
