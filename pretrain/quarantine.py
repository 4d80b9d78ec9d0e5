"""Quarantine of broken media: counts and lists files that cannot be read, and stops above a limit."""

import json
from pathlib import Path

from catalog.catalog import Catalog
from catalog.errors import VitrineError
from pretrain.content_loader import ItemContentLoader

QUARANTINE_FILE = "quarantine.jsonl"


class Quarantine:
    """Items with a broken image, audio, … file; for them that modality is missing."""

    def __init__(self, catalog: Catalog, loader: ItemContentLoader) -> None:
        self.catalog = catalog
        self.broken = [
            (name, item, reason)
            for name, source in loader.sources.items()
            for item, reason in sorted(source.broken.items())
        ]

    def __len__(self) -> int:
        return len(self.broken)

    def check(self, max_share: float) -> None:
        """Raises VitrineError if more than this share of the items has a broken file."""
        items = {item for _, item, _ in self.broken}
        if len(items) <= max_share * self.catalog.num_items:
            return
        name, item, reason = self.broken[0]
        raise VitrineError(
            f"{len(items)} of {self.catalog.num_items} items of {self.catalog.name} cannot be read "
            f"as a whole, more than data.max_broken = {max_share:g} allows (the first: {name} of item "
            f"{self._id(item)}: {reason}); `vitrine catalog check {self.catalog.folder}` names them; "
            "mend them, or allow more with --data.max_broken"
        )

    def save(self, folder: Path) -> None:
        """Writes one line per broken file: modality, item id, reason."""
        lines = (
            json.dumps({"modality": name, "item_id": self._id(item), "reason": reason})
            for name, item, reason in self.broken
        )
        (folder / QUARANTINE_FILE).write_text("".join(f"{line}\n" for line in lines), "utf8")

    def _id(self, item: int) -> str:
        return self.catalog.items[item]["item_id"]
