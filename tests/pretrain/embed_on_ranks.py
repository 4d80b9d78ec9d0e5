"""Run by torchrun: embeds a catalog and writes which blocks each process did.

embed_on_ranks.py CATALOG ENCODER OUTPUT
"""

import json
import sys
from pathlib import Path

import torch

from catalog.config import CatalogConfig
from launch.cli import exit_process
from pretrain import embed
from pretrain.config import EmbedConfig


def main(catalog: str, encoder: str, output: str) -> None:
    torch.set_num_threads(1)
    embed.BLOCK = 16
    run = embed.EmbeddingRun.run

    def run_and_report(self: embed.EmbeddingRun, rank: int, ranks: int) -> None:
        facts = Path(output).with_name(f"rank{rank}.json")
        facts.write_text(
            json.dumps({"ranks": ranks, "blocks": self.store.pending_blocks(rank, ranks)})
        )
        run(self, rank, ranks)

    embed.EmbeddingRun.run = run_and_report
    config = EmbedConfig(encoder=encoder, catalog=CatalogConfig(path=catalog))
    embed.run_embedding(config, Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
    exit_process()
