"""RecTools' side of `benchmarks.sasrec`: trains its SASRec and saves user states and item vectors.

Runs in an environment of its own, so it imports nothing of the project.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns  # pyright: ignore[reportMissingImports]
from rectools.dataset import Dataset  # pyright: ignore[reportMissingImports]
from rectools.models import SASRecModel  # pyright: ignore[reportMissingImports]


class Looks(pl.Callback):
    """Callback that pauses the clock every `every` epochs and saves the states that rank the targets."""

    def __init__(self, folder: Path, shop: dict[str, np.ndarray], every: int) -> None:
        self.folder, self.shop, self.every = folder, shop, every
        self.model: Any = None
        self.seconds: list[float] = []
        self.spent = self.started = 0.0

    def __deepcopy__(self, memo: Any) -> "Looks":
        """Returns itself: `SASRecModel` fits with a copy of its Trainer, whose times are read here later."""
        return self

    def on_train_start(self, *_: Any, **__: Any) -> None:
        self.started = time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent += time.process_time() - self.started
        if (trainer.current_epoch + 1) % self.every == 0:
            self.seconds.append(self.spent)
            self.look(pl_module)
        self.started = time.process_time()

    @torch.no_grad()
    def look(self, module: Any) -> None:
        module.eval()
        known = self.model.data_preparator.item_id_map
        rows = np.zeros(int(self.shop["num_items"]), dtype=np.int64)  # 0 is padding: untrained
        rows[known.external_ids[1:].astype(np.int64)] = known.internal_ids[1:]
        embeddings = module.torch_model.item_model.get_all_embeddings()
        found = {"items": embeddings[rows].numpy(), "known": rows > 0}
        for name in ("validation", "test"):
            read = self.sessions(rows, name)
            found[name] = np.concatenate(
                [
                    module.torch_model.encode_sessions({"x": part}, embeddings)[:, -1].numpy()
                    for part in read.split(256)
                ]
            )
        np.savez(self.folder / f"{len(self.seconds)}.npz", **found)
        module.train()

    def sessions(self, rows: np.ndarray, name: str) -> torch.Tensor:
        """Sessions as in its `_collate_fn_recommend`: the latest known items, padded on the left."""
        longest = self.model.data_preparator.session_max_len
        sessions = np.zeros((len(self.shop[f"{name}_users"]), longest), dtype=np.int64)
        targets = zip(self.shop[f"{name}_users"], self.shop[f"{name}_positions"], strict=True)
        for row, (user, position) in enumerate(targets):
            begin = self.shop["offsets"][user]
            read = rows[self.shop["items"][begin : begin + position]]
            read = read[read > 0][-longest:]
            sessions[row, longest - len(read) :] = read
        return torch.from_numpy(sessions)


def main(folder: Path, settings: dict[str, Any]) -> None:
    """Trains with `settings` of `SASRecModel`, and `seed`, `epochs`, `every` (epochs per evaluation)."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    seed, every, epochs = (settings.pop(name) for name in ("seed", "every", "epochs"))
    shop = dict(np.load(folder / "shop.npz"))
    looks = Looks(folder, shop, every)
    pl.seed_everything(seed, verbose=False)

    def trainer() -> pl.Trainer:
        """The Trainer of `SASRecModel`'s defaults, with one more callback."""
        return pl.Trainer(
            max_epochs=epochs,
            min_epochs=epochs,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            devices=1,
            callbacks=[looks],
        )

    looks.model = model = SASRecModel(get_trainer_func=trainer, **settings)
    ends = shop["train_end"]
    users = np.repeat(np.arange(len(ends)), ends)
    places = np.concatenate([np.arange(end) for end in ends])
    frame = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: shop["items"][shop["offsets"][users] + places],
            Columns.Weight: 1.0,
            # Positions in the history; real timestamps have ties.
            Columns.Datetime: pd.to_datetime(places, unit="s"),
        }
    )
    model.fit(Dataset.construct(frame))
    (folder / "seconds.json").write_text(json.dumps(looks.seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
