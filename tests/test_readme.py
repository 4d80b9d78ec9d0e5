"""The README is short, its pictures are small, and its test line is the one that CI runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf8")
WORDS = 1200
IMAGE_BYTES = 300_000


def test_the_test_line_is_the_one_ci_runs() -> None:
    blocks = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    first = next(line for line in lines if line.startswith("./install --test"))
    assert first == "./install --test && .venv/bin/pytest -n 2"


def test_it_is_short() -> None:
    prose = re.sub(r"<!--.*?-->", "", README)
    assert len(prose.split()) <= WORDS


def test_its_pictures_exist_and_are_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)]
    assert pictures
    assert sum(path.stat().st_size for path in pictures) < IMAGE_BYTES


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#]+)[^)]*\)", README)
    assert links
    gone = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not gone
