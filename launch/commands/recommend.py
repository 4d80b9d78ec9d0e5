"""`vitrine recommend` and `vitrine index`: top-k items for a user, and an ANN index to find them."""

import sys
from dataclasses import dataclass
from pathlib import Path

from catalog.config import PositiveInt
from finetune.config import IndexConfig
from launch.commands.devices import ComputeOptions
from launch.commands.output import print_output_path


@dataclass(frozen=True)
class RecommendOptions(ComputeOptions):
    recommender: str
    """Folder of a recommender artifact, or of several domains (`vitrine domains`)."""
    user: str | None = None
    """Id of the user."""
    history: str | None = None
    """Or the history of an unknown user: item ids with commas between."""
    k: PositiveInt = 10
    """Length of the list."""
    domain: str = ""
    """Name of the domain, of several; empty: the one in use."""
    index: str = ""
    """Folder of an index of its items (`vitrine index`); empty: all items are scored."""


def recommend(options: RecommendOptions) -> None:
    from finetune.domains import STORE_FILE, DomainStore
    from finetune.recommendations import recommend as recommend_items

    folder = options.recommender
    if options.domain or (Path(folder) / STORE_FILE).exists():
        folder = DomainStore.read(folder).path_of(options.domain)
    recommended = recommend_items(
        folder,
        user=options.user,
        history=options.history,
        k=options.k,
        index=options.index or None,
        compute=options.compute(),
    )
    if recommended.source == "popularity":
        print(
            "no history: these are the most popular items of training",
            file=sys.stderr,
        )
    print(f"by {recommended.source}")
    rows = zip(recommended.scores, recommended.item_ids, recommended.titles, strict=True)
    for place, (score, item, title) in enumerate(rows, 1):
        print(f"{place:4}  {score:9.4f}  {item}  {title}")


@dataclass(frozen=True)
class IndexOptions(ComputeOptions):
    recommender: str
    """Folder of a recommender artifact."""
    encoder: str = ""
    """Folder of its encoder, if that was moved."""
    output: str = "runs/index"
    """Folder of the index."""


def index(options: IndexOptions, settings: IndexConfig) -> None:
    from catalog.artifacts import read_manifest
    from finetune.ann_index import run_indexing

    output = Path(options.output)
    run_indexing(settings, options.recommender, output, options.encoder or None, options.compute())
    metrics = read_manifest(output)["metrics"]
    print(
        f"recall@10 {metrics['recall@10']:.4f} against exact search, over {metrics['num_users']:,} users; "
        f"{metrics['search_ms']} ms each, exact {metrics['exact_ms']} ms",
        file=sys.stderr,
    )
    print_output_path(output)
