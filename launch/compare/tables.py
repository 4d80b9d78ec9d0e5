"""The results of a comparison as Markdown and as Parquet tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalog.catalog import Catalog
from catalog.splits import Split, target_rows
from launch.compare.results import Comparison
from launch.search.result import SearchResult, in_short


def comparison_markdown(comparison: Comparison) -> str:
    """The arms as a Markdown table, the sentences below, and the searches."""
    columns = list(comparison.rows[0].metrics)
    heads = [*columns, "trials"] if comparison.searches else columns
    lines = [
        f"# {comparison.title}",
        "",
        f"| arm | NDCG@10 | 95 % interval | {' | '.join(heads)} | trained | of | seconds | MiB |",
        f"| --- | {'---: | ' * (6 + len(heads))}",
    ]
    for row in comparison.rows:
        if row.failed:
            lines.append(f"| {row.name} | failed | {'| ' * (5 + len(heads))}|")
            continue
        cells = [f"{row.metrics[column]:.4g}" for column in columns]
        cells += [str(row.trials)] if comparison.searches else []
        lines.append(
            f"| {row.name} | {row.ndcg.value:.4f} | {row.ndcg.low:.4f} – {row.ndcg.high:.4f} | "
            f"{' | '.join(cells)} | {row.trained_parameters:,} | {row.parameters:,} | "
            f"{row.seconds:.0f} | {row.peak_mib:.0f} |"
        )
    lines += ["", comparison.protocol, ""]
    lines += [f"- {sentence}" for sentence in comparison.notes]
    lines += _search_lines(comparison.searches)
    return "\n".join(lines) + "\n"


def _search_lines(searches: Mapping[str, SearchResult]) -> list[str]:
    if not searches:
        return []
    lines = [
        "",
        "| arm | trials | diverged | best on validation | setting | between | chosen |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for name, search in searches.items():
        for setting, between in search.space.items():
            lines.append(
                f"| {name} | {search.trials} | {search.diverged} | {search.score:.4f} | {setting} | "
                f"{between} | {in_short(search.chosen[setting])} |"
            )
    return lines


def write_targets(
    path: Path,
    ranks: Mapping[str, list[NDArray[np.int64]]],
    first_seed: int,
    catalog: Catalog,
    split: Split,
) -> None:
    """Writes columns arm, seed, user_id, item_id and rank, a row group for each arm and seed."""
    users = pa.array(catalog.user_ids[split.test.users].tolist(), pa.string())
    targets = catalog.interactions.items[target_rows(catalog.interactions, split.test)]
    items = catalog.items.data.column("item_id").take(pa.array(targets)).combine_chunks()
    writer = None
    for name, runs in ranks.items():
        for seed, ranks_of_run in enumerate(runs, first_seed):
            table = pa.table(
                {
                    "arm": pa.array([name] * len(users)).dictionary_encode(),
                    "seed": pa.array(np.full(len(users), seed, np.int32)),
                    "user_id": users,
                    "item_id": items,
                    "rank": pa.array(ranks_of_run),
                }
            )
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    if writer is not None:
        writer.close()


def write_arms(
    path: Path,
    metrics: Mapping[str, list[dict[str, Any]]],
    first_seed: int,
    searches: Mapping[str, SearchResult],
) -> None:
    """Writes a row for each arm and seed, with a column for each metric and each searched setting."""
    names = sorted({key for runs in metrics.values() for run in runs for key in run})
    chosen = {
        arm: {"trials": search.trials} | {f"search/{name}": v for name, v in search.chosen.items()}
        for arm, search in searches.items()
    }
    settings = sorted({name for of_arm in chosen.values() for name in of_arm})
    rows = [
        {"arm": arm, "seed": seed, **{name: _number(run.get(name)) for name in names}}
        | {name: _number(chosen.get(arm, {}).get(name)) for name in settings}
        for arm, runs in metrics.items()
        for seed, run in enumerate(runs, first_seed)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
