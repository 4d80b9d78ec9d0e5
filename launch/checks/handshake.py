"""An all-reduce of two processes over gloo; run as `python -m launch.checks.handshake PORT`."""

import os
import sys
from datetime import timedelta

import torch
from torch import distributed


def main(port: int) -> None:
    rank = 0 if os.fork() else 1  # importing torch twice would take seconds more
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=10),
    )
    number = torch.tensor([rank + 1.0])
    distributed.all_reduce(number)
    if rank == 0:
        print(number.item())
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
