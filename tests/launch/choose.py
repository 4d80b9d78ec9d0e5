"""Run by torchrun: each rank says which checkpoint of its folder the run would resume from.

    choose.py OUTPUT CASE…    # rank r looks into OUTPUT/CASE/r

Writes OUTPUT/rank<n>.json: by case, the checkpoint's name, null where there is none, or the error.
"""

import json
import sys
from pathlib import Path

import torch.distributed as dist

from catalog.errors import AllRanksError
from launch.resume import choose_checkpoint


def main(output: str, *cases: str) -> None:
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    for case in cases:
        try:
            checkpoint = choose_checkpoint(Path(output) / case / str(rank))
            found[case] = checkpoint and checkpoint.name
        except AllRanksError as error:
            found[case] = f"refused: {error}"
    (Path(output) / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
