"""Run by torchrun: what two ranks read of a catalog, and what DDP sends, in a few steps of fine-tuning.

cache_on_ranks.py SETTINGS OUTPUT    # fine-tuning's, as YAML
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from catalog.catalog import load_catalog
from finetune.cache import CacheRefresh
from finetune.config import FinetuneConfig
from finetune.module import FinetuneModule
from finetune.run import run_finetuning
from launch.cli import exit_process
from launch.settings import load_settings
from launch.trainer import build_trainer
from pretrain.artifact import open_encoder
from pretrain.content_loader import ItemContentLoader
from pretrain.embed_items import embed_items
from pretrain.encoder import ItemEncoder

sent: Counter[str] = Counter()
read: list[int] = []


def count_what_ddp_sends() -> None:
    broadcast = dist._broadcast_coalesced  # type: ignore[attr-defined]

    def counted(group: Any, tensors: list[torch.Tensor], *rest: Any) -> Any:
        sent["by DDP"] += sum(tensor.nbytes for tensor in tensors)
        return broadcast(group, tensors, *rest)

    def started(self: FinetuneModule) -> None:
        sent.clear()  # weights, once, where DDP begins
        start(self)

    start = FinetuneModule.on_train_start
    FinetuneModule.on_train_start = started
    dist._broadcast_coalesced = counted  # type: ignore[attr-defined]


def count_items_read() -> None:
    """Of those that each reading of the whole catalog takes through this rank's towers."""
    read_content, refresh = ItemContentLoader.read, CacheRefresh.__call__
    inside = [False]

    def counted(self: ItemContentLoader, items: Any) -> Any:
        if inside[0]:
            read[-1] += len(items)
        return read_content(self, items)

    def refreshed(self: CacheRefresh, module: FinetuneModule, step: int = -1) -> None:
        read.append(0)
        inside[0] = True
        refresh(self, module, step)
        inside[0] = False
        assert module.content is not None
        whole = np.empty(tuple(module.content.shape), dtype=np.float32)
        embed_items(self.encoder, self.loader, whole, progress=False)
        torch.testing.assert_close(module.content, torch.from_numpy(whole), atol=1e-6, rtol=1e-5)

    ItemContentLoader.read, CacheRefresh.__call__ = counted, refreshed


def passes_of_ranks(config: FinetuneConfig) -> list[int]:
    """How many passes each rank takes where the first has six items to read and the other none."""
    _, parts = open_encoder(config.encoder)
    loader = parts.content_loader(load_catalog(config.catalog))
    taken, forward = [], ItemEncoder.forward

    def counted(self: ItemEncoder, content: Any) -> Any:
        taken.append(1)
        return forward(self, content)

    ItemEncoder.forward = counted
    items = np.arange(6 if dist.get_rank() == 0 else 0)
    out = np.zeros((len(items), parts.encoder.config.width), dtype=np.float32)
    embed_items(parts.encoder, loader, out, items=items, batch_tokens=1, in_step=True)
    assert out.any(axis=1).all()
    found = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    dist.all_gather(found, torch.tensor([len(taken)]))
    return [int(number) for number in found]


def main(settings: str, output: str) -> None:
    torch.set_num_threads(1)
    config = load_settings(FinetuneConfig, Path(settings), [])
    count_what_ddp_sends()
    count_items_read()
    run_finetuning(config, Path(output), build_trainer)
    facts = {"rank": dist.get_rank(), "sent": sent["by DDP"], "read": read}
    facts["passes"] = passes_of_ranks(config)
    Path(f"{output}.rank{dist.get_rank()}.json").write_text(json.dumps(facts))
    dist.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
