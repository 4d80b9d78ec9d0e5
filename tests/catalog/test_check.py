"""The check finds each fault it promises to find, and is silent about a clean catalog."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.config import CatalogConfig
from catalog.doctor.run import check_catalog, format_report


@pytest.fixture
def shop(tmp_path: Path):
    """A clean catalog; `items` and `rows` replace lines of its tables."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((96, 96)).save(folder / f"{n}.png")

    def check(items: dict[int, str] | None = None, rows: list[str] | None = None, header: str = ""):
        lines = [f"i{n},Thing {n},Words {n},{n}.png" for n in range(4)]
        for n, line in (items or {}).items():
            lines[n] = line
        head = header or "item_id,title,description,image"
        (folder / "items.csv").write_text("\n".join([head, *lines]) + "\n")
        bought = [
            f"u{u},i{(u + n) % 4},{90000000 * n + 1000000000}" for u in range(120) for n in range(4)
        ]
        (folder / "interactions.csv").write_text(
            "\n".join(["user_id,item_id,timestamp", *bought, *(rows or [])]) + "\n"
        )
        return check_catalog(CatalogConfig(str(folder)))

    check.folder = folder
    return check


def whats(report) -> str:
    return " | ".join(finding.what for finding in report.findings)


def test_a_clean_catalog_has_no_findings(shop):
    report = shop()
    assert report.ok, whats(report)
    text = format_report(report)
    assert "No faults found" in text
    assert re.search(r"items with both +4 \(100\.0%\)", text)
    assert "2001-09-09 to " in text
    assert "title = title" in text
    assert report.facts["history lengths"] == "median 4; half of all users 4 to 4; all 4 to 4"


@pytest.mark.parametrize(
    ("items", "rows", "expected"),
    [
        (
            {1: "i1,Thing 0,Words 1,1.png"},
            [],
            "2 items share their titles with another (items i0, i1)",
        ),
        (
            {1: "i1,Thing 1,Words 0,1.png"},
            [],
            "2 items share their texts with another (items i0, i1)",
        ),
        ({1: "i1,Thing 1,Words 1,0.png"}, [], "2 items share their image with another"),
        (
            {1: "i1,Thing 1,Words 1,9.png"},
            [],
            "1 images cannot be read (9.png: the file is missing)",
        ),
        ({}, ["u0,i0,1000000000"], "1 interactions repeat another (same user, item and time)"),
        ({}, ["u0,i9,5", "u0,i8,5"], "2 interactions name items the items table lacks"),
    ],
)
def test_each_fault_is_found_and_comes_with_a_remedy(shop, items, rows, expected):
    report = shop(items, rows)
    (finding,) = report.findings
    assert expected in finding.what
    assert finding.remedy
    assert f"→ {finding.remedy}" in format_report(report)


def test_buying_again_later_is_no_repetition(shop):
    assert shop(rows=["u0,i0,1000000001"]).ok


def test_a_shared_category_is_no_repeated_text(shop):
    items = {n: f"i{n},Thing {n},mugs,{n}.png" for n in range(4)}
    assert shop(items, header="item_id,title,category,image").ok
    assert not shop(items).ok


def test_missing_texts_and_images_are_counted(shop):
    facts = shop({0: "i0,,,0.png", 1: "i1,Thing 1,Words 1,", 2: "i2,,,"}).facts
    assert facts["items with text"] == "2 (50.0%)"
    assert facts["items with an image"] == "2 (50.0%)"
    assert facts["items with both"] == "1 (25.0%)"
    assert facts["items with neither"] == "1 (25.0%)"


def test_rows_marked_as_suspect_are_counted(shop):
    marks = ["True", "no", "no", "yes"]
    items = {n: f"i{n},Thing {n},Words {n},{n}.png,{mark}" for n, mark in enumerate(marks)}
    report = shop(items, header="item_id,title,description,image,Picture_Suspected")
    assert whats(report) == "2 items are marked in the column Picture_Suspected"


def test_a_split_without_test_targets_is_a_finding(shop, tmp_path):
    shop()
    rows = [f"u{n},i0,{n}" for n in range(20)]
    (shop.folder / "interactions.csv").write_text("\n".join(["user_id,item_id,time", *rows]) + "\n")
    config = CatalogConfig(str(shop.folder))
    assert "has no test targets" in whats(check_catalog(config))
    assert check_catalog(replace(config, roles={"time": None})).facts["times"].startswith("none")


def test_how_the_tables_were_read_is_part_of_the_report(shop, capsys):
    report = shop(header="item_id,title,description,price", items={0: 'i0,"A <b>mug</b>",hot,$3'})
    assert any("HTML" in str(note) for note in report.notes)
    assert "How it was read" in format_report(report)
    assert capsys.readouterr().err == "", "said once"
