"""`vitrine cache …`: what is cached, and removing what is not needed."""

import json
import time
from dataclasses import dataclass

SHOWN = 20
"""Entries of a kind that are listed."""


@dataclass(frozen=True)
class CacheListOptions:
    json: bool = False
    """Print one JSON object for each entry: kind, path, bytes, last_used (seconds since 1970)."""


def cache_list(options: CacheListOptions) -> None:
    from catalog.cache import cache_folder
    from catalog.cache_entries import KINDS, list_entries
    from catalog.sizes import format_size

    entries = list_entries()
    if options.json:
        for entry in entries:
            line = {"kind": entry.kind, "path": str(entry.path), "bytes": entry.size}
            print(json.dumps({**line, "last_used": round(entry.used)}))
        return
    print(f"{cache_folder()}  {format_size(sum(entry.size for entry in entries))}")
    for kind, what in KINDS.items():
        own = [entry for entry in entries if entry.kind == kind]
        if own:
            size = format_size(sum(entry.size for entry in own))
            print(f"\n{kind}: {what}, {len(own):,} entries, {size}")
        for entry in sorted(own, key=lambda entry: -entry.size)[:SHOWN]:
            print(f"  {format_size(entry.size):>9}  used {_ago(entry.used)}  {entry.path.name}")
        if len(own) > SHOWN:
            print(f"  and {len(own) - SHOWN:,} smaller ones")


@dataclass(frozen=True)
class CachePruneOptions:
    max_size: str = ""
    """Remove what was not used for longest until the rest has at most this size, such as 20GB."""
    older_than: str = ""
    """Remove what was not used for so long, such as 12h, 30d or 8w."""
    kind: str = ""
    """Remove only entries of this kind: catalogs, media, towers, features, duplicates or hashes."""
    dry_run: bool = False
    """Remove nothing; print what would be removed."""


def cache_prune(options: CachePruneOptions) -> None:
    """Removes cached data. What was used within the last hour stays."""
    from catalog.cache_entries import prune_entries
    from catalog.sizes import format_size, parse_age, parse_size

    removed = prune_entries(
        parse_size(options.max_size, "--max_size") if options.max_size else None,
        parse_age(options.older_than, "--older_than") if options.older_than else None,
        [options.kind] if options.kind else [],
        dry_run=options.dry_run,
    )
    for entry in removed:
        print(f"{format_size(entry.size):>9}  {entry.kind}/{entry.path.name}")
    total = format_size(sum(entry.size for entry in removed))
    what = "would be removed" if options.dry_run else "removed"
    print(f"{len(removed):,} entries, {total} {what}")


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:>4.0f} {unit:<3} ago"
    return f"{seconds:>4.0f} s   ago"
