"""`vitrine catalog …` as a user meets it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catalog.doctor.facts import doubling
from catalog.doctor.finding import Distribution
from launch.catalog_views.bars import bar_chart
from launch.catalog_views.mismatch import shares_of
from launch.cli import main

LOG = "user_id,item_id,date\nu,i0,1.2.2020\nu,i1,2.2.2020\nv,i0,3.2.2020\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text("item_id;title\ni0;Mug\ni1;Pot\n")
    (tmp_path / "interactions.csv").write_text(LOG)
    return tmp_path


def test_a_remedy_names_an_option_that_the_command_takes(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["catalog", "check", str(shop)]) == 0
    said = capsys.readouterr().out
    assert "set --delimiter" in said
    assert "--catalog." not in said
    assert main(["catalog", "check", str(shop), "--dates", "month-first"]) == 0
    assert "set --dates" not in capsys.readouterr().out
    (shop / "interactions.csv").write_text(LOG.replace("3.2.2020", "31.2.2020x"))
    assert main(["catalog", "check", str(shop)]) == 2
    assert "--catalog." not in capsys.readouterr().err


def test_an_import_names_its_own_options(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "imported"
    assert main(["catalog", "import", "folder", str(shop), "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert "set --delimiter" in said
    assert "--catalog." not in said


def test_sources_are_listed_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "sources"]) == 0
    listed = capsys.readouterr().out
    assert "vitrine catalog check dataset/ml-1m --source recbole" in listed


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A shop with pictures, a title that is HTML, a broken image, and an interaction in the future."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(noise).resize((300, 200)).save(folder / f"{n}.png")
    (folder / "3.png").write_bytes(b"no image")
    rows = [
        {"item_id": f"i{n}", "title": f"Lamp {n}", "image": f"{n}.png", "price": 3 + n}
        for n in range(4)
    ]
    rows[1]["title"] = "&amp;lt;script&amp;gt;alert(1)&amp;lt;/script&amp;gt; lamp"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "items.jsonl").write_text(lines)
    log = [
        f"u{u},i{(u + n) % 4},{1_600_000_000 + 999 * u + 9_000_000 * n}"
        for u in range(9)
        for n in (0, 1, 2)
    ]
    log.append("u0,i3,9000000000")
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *log]) + "\n")
    return folder


class Page(HTMLParser):
    """The tags of a page and the addresses that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_holds_everything_it_shows_and_runs_nothing(faulty: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert main(["catalog", "check", str(faulty), "--html", str(path)]) == 0
    text = path.read_text(encoding="utf8")
    page = Page(text)
    assert all(one.startswith(("data:image/", "#")) for one in page.addresses)
    assert any(one.startswith("data:image/jpeg") for one in page.addresses)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in text
    assert "&amp;lt;script" in text, "what a shop wrote is escaped"
    assert page.tags.count("svg") >= 4
    for kind in ("future-interactions", "broken-images", "html-in-texts"):
        assert kind in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_report_is_written_as_json(faulty: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    assert main(["catalog", "check", str(faulty), "--json", str(path)]) == 0
    content = json.loads(path.read_text(encoding="utf8"))
    found = {one["kind"]: one for one in content["findings"]}
    assert found["broken-images"]["examples"] == ["i3"]
    assert found["future-interactions"]["severity"] == "error"
    assert content["schema"] == 1
    assert [path.name for path in tmp_path.glob("*.partial")] == []


@pytest.mark.parametrize(
    ("severity", "mended", "status"),
    [
        ("never", False, 0),
        ("error", False, 1),
        ("hint", False, 1),
        ("error", True, 0),
        ("warning", True, 1),
    ],
)
def test_the_exit_status_follows_the_severity(
    faulty: Path, severity: str, mended: bool, status: int
) -> None:
    log = faulty / "interactions.csv"
    if mended:
        log.write_text(log.read_text().replace("u0,i3,9000000000\n", ""))
    arguments = ["catalog", "check", str(faulty), "--fail_on", severity]
    if not status:
        assert main(arguments) == 0
        return
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == status


def test_a_report_that_cannot_be_written_is_one_line(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop / "file").write_text("x")
    target = shop / "file" / "report.html"
    assert main(["catalog", "check", str(shop), "--html", str(target)]) == 2
    assert re.fullmatch(r"vitrine: .* cannot be written: .*\n", capsys.readouterr().err)


def test_show_writes_a_sheet_of_a_sample(faulty: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "sheet.png"
    assert main(["catalog", "show", str(faulty), "--output", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.search(r"items +4", printed.out)
    with Image.open(path) as sheet:
        assert sheet.width > 4 * 140
        colours = sheet.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100


def test_show_prints_an_item_with_its_picture(faulty: Path, capsys) -> None:
    assert main(["catalog", "show", str(faulty), "--item", "i2"]) == 0
    printed = capsys.readouterr().out
    assert "2.png (300 × 200 pixels, " in printed
    assert "Lamp 2" in printed
    assert re.search(r"price +5", printed)
    assert re.search(r"popularity +\d interactions, rank \d of 4", printed)
    assert main(["catalog", "show", str(faulty), "--item", "i3"]) == 0
    assert "cannot be read: not an image" in capsys.readouterr().out


def test_show_prints_a_history_with_times_and_titles(faulty: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "strip.png"
    assert main(["catalog", "show", str(faulty), "--user", "u2", "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "user u2: 3 interactions" in printed
    assert "2020-09-13  i2  Lamp 2" in printed
    assert path.is_file()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--item", "i22", "has no item 'i22'. Did you mean 'i2'"),
        ("--user", "u22", "has no user 'u22'. Did you mean 'u2'"),
    ],
)
def test_an_unknown_id_gives_the_nearest_ones(
    faulty: Path, option: str, value: str, message: str, capsys
) -> None:
    assert main(["catalog", "show", str(faulty), option, value]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_bar_is_as_high_as_its_count() -> None:
    chart = bar_chart(Distribution("Sizes", "items", ["0", "1", "2–3"], [10, 5, 0]))
    heights = [float(one) for one in re.findall(r'height="([\d.]+)"', chart)]
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[2] == 0
    assert "2–3: 0 items" in chart


def test_doubling_bins_hold_every_value() -> None:
    found = doubling("x", "items", np.array([1, 1, 2, 3, 4, 7, 8]))
    assert found.labels == ["1", "2–3", "4–7", "8–15"]
    assert found.counts == [2, 2, 2, 1]


def test_a_swapped_picture_fits_its_text_worst() -> None:
    text = torch.nn.functional.normalize(torch.randn(40, 16, generator=torch.manual_seed(0)), dim=1)
    image = text.clone()
    image[[3, 7]] = image[[7, 3]]
    both = np.ones(40, bool)
    both[9] = False
    shares = shares_of(torch.stack([text, image], dim=1), both)
    assert shares[[3, 7]].min() > shares[both].mean()
    assert np.isnan(shares[9])
    assert np.nanmax(np.delete(shares, [3, 7])) == 0
