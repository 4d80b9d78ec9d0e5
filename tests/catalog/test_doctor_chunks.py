"""The check finds the same whatever is looked at together, and lets go of what it has read."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog import interactions
from catalog.config import CatalogConfig
from catalog.doctor import context, item_ids, items, near_texts, similar
from catalog.doctor.finding import CheckReport, report_json
from catalog.doctor.groups import group_numbers, mean_ranks, medians
from catalog.doctor.run import check_catalog
from catalog.interactions import Interactions

NOW, START = 1_750_000_000, 1_600_000_000
FAULTS = (
    *(
        "duplicate-titles",
        "ids-in-texts",
        "suspect-rows",
        "price-outliers",
        "short-texts",
        "id-order",
    ),
    *("near-duplicate-texts", "duplicate-interactions", "future-interactions", "burst-users"),
    *("ancient-interactions", "regular-users", "split-overlap", "single-item-categories"),
    *("placeholder-texts", "unbalanced-categories", "equal-times"),
)


@pytest.fixture
def shop(tmp_path: Path) -> CatalogConfig:
    """A shop of 60 items and 90 users with many faults."""
    rng = np.random.default_rng(0)
    table = [
        {
            "item_id": f"sku-{1000 + n}",
            "title": " ".join([*rng.choice(["oak", "steel", "linen", "blue"], 3), f"number{n}"]),
            "description": f"piece{n} kind{n} part{n} made of wood{n} in a town{n} and hill{n}",
            "category": f"c{n}" if n > 51 else "most",
            "price": 10.0 + n % 7,
            "suspect": "yes" if n % 19 == 3 else "no",
        }
        for n in range(60)
    ]
    table[7]["title"] = table[31]["title"]
    table[5]["description"] = f"like sku-{1044} but green"
    table[50]["description"] = table[2]["description"] + " new"
    table[50]["title"] = table[2]["title"]
    table[12] |= {"title": "!", "description": "?"}
    table[13]["title"] = "n/a"
    table[40]["price"] = 90_000.0
    rows = [
        (f"u{u}", min(59, int(60 * rng.random() ** 3)), START + 1000 * u + 97_001 * n * (n + u % 5))
        for u in range(90)
        for n in range(9)
    ]
    rows += [
        ("u3", 1, START),
        ("u3", 2, START),
        ("u3", 1, START),
        ("u8", 4, NOW + 10**7),
        ("u8", 4, 5),
    ]
    rows += [("w0", 7, 1_610_000_000 + 3600 * n) for n in range(20)]
    rows += [("u44", n, 1_610_000_000 + n // 2) for n in range(59)]
    rows += [(f"v{u}", n, START + 77 * u) for u in range(20) for n in range(3)]
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    lines = [
        f"{u},sku-{1000 + n},{t},{'test' if k % 5 == 4 else 'train'}"
        for k, (u, n, t) in enumerate(rows)
    ]
    lines += [f"u70,sku-1003,{START},train", f"u70,sku-1003,{START},test"]
    text = "\n".join(["user_id,item_id,timestamp,split", *lines])
    (folder / "interactions.csv").write_text(text + "\n")
    return CatalogConfig(str(folder))


def found(report: CheckReport) -> dict[str, list]:
    return {one.kind + one.unit: [one.what, one.rows.tolist()] for one in report.findings}


def test_findings_are_the_same_whatever_is_looked_at_together(
    shop: CatalogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = check_catalog(shop, now=NOW)
    assert {one.kind for one in whole.findings} >= set(FAULTS)
    for size in (1, 7, 64):
        monkeypatch.setattr(interactions, "CHUNK", size)
        monkeypatch.setattr(similar, "BLOCK", size)
        monkeypatch.setattr(similar, "TOKENS", 10 * size)
        monkeypatch.setattr(near_texts, "BYTES", 50 * size)
        monkeypatch.setattr(near_texts, "PAIR_CHARACTERS", 50 * size)
        monkeypatch.setattr(context, "CHUNKS_READ", size)
        monkeypatch.setattr(context, "TEXT_BYTES", 60 * size)
        for module in (context, items):
            monkeypatch.setattr(module, "BATCH", size)
        parts = check_catalog(shop, now=NOW)
        assert found(parts) == found(whole)
        assert report_json(parts) == report_json(whole)


def test_a_sample_of_the_times_tells_their_unit_and_range(
    shop: CatalogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = check_catalog(shop, now=NOW)
    monkeypatch.setattr(context, "TIMES", 50)
    monkeypatch.setattr(interactions, "CHUNK", 33)
    sampled = check_catalog(shop, now=NOW)
    assert found(sampled) == found(whole)
    assert sum(sampled.distributions[-1].counts) == sum(whole.distributions[-1].counts)


def test_ids_of_many_items_are_compared_in_a_sample(
    shop: CatalogConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_ids, "MOST_ORDERED", 55)
    monkeypatch.setattr(item_ids, "MIN_ORDERED", 20)
    monkeypatch.setattr(item_ids, "ORDER_ERRORS", 1.0)
    one, *_ = [one for one in check_catalog(shop, now=NOW).findings if one.kind == "id-order"]
    assert one.count == 30
    assert one.what.startswith("item ids fall with the popularity")
    assert one.what.endswith("of 30 sampled)")


def test_medians_ranks_and_numbers_are_those_of_their_group() -> None:
    rng = np.random.default_rng(0)
    groups, values = rng.integers(0, 6, 200), rng.integers(0, 30, 200).astype(float)
    for group in range(6):
        inside = groups == group
        assert (medians(values, groups)[inside] == np.median(values[inside])).all()
    smaller = (values[:, None] > values).sum(axis=1)
    equal = (values[:, None] == values).sum(axis=1)
    assert np.allclose(mean_ranks(values), smaller + (equal + 1) / 2)
    numbers = group_numbers(groups, values)
    pairs = list(zip(groups.tolist(), values.tolist(), strict=True))
    assert [sorted(set(pairs)).index(pair) for pair in pairs] == numbers.tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_pass_over_interactions_leaves_none_of_their_pages_in_memory(tmp_path: Path) -> None:
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) * 1024

    size, users = 8_000_000, 1000
    np.save(tmp_path / "times.npy", np.arange(size))
    np.save(tmp_path / "items.npy", np.zeros(size, np.int32))
    times, rows = (np.load(tmp_path / f"{one}.npy", mmap_mode="r") for one in ("times", "items"))
    history = Interactions(np.arange(users + 1) * (size // users), rows, times)
    before, most, total = resident(), 0, 0
    for _, part in history.chunks():
        total += int(times[part].sum()) + int(rows[part].sum())
        most = max(most, resident())
    assert total == size * (size - 1) // 2
    assert most - before < 60_000_000, "one chunk of the 96 MB"
    assert resident() - before < 4_000_000
