"""The generated pages hold every command, option, setting and public name, with type and default."""

import importlib
import sys

import pytest

from catalog.doctor.kinds import KINDS
from launch.arguments import Signature
from launch.cli import COMMANDS, load_command
from launch.settings import describe
from tests.docs.pages import ROOT


@pytest.fixture(autouse=True)
def _extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extension"))


def generated(name: str) -> str:
    return importlib.import_module(name).page()


def test_the_commands_page_has_every_command_and_option() -> None:
    page = generated("command_reference")
    for name in COMMANDS:
        assert f"## vitrine {name}\n" in page
        section = page.split(f"## vitrine {name}\n")[1].split("\n## ")[0]
        for option in describe(Signature.of(load_command(name)).options):
            assert f"`--{option.key}`" in section or f"`{option.key.upper()}`" in section


def test_the_settings_page_has_every_setting_or_links_to_where_it_is() -> None:
    page = generated("settings_reference")
    for name in COMMANDS:
        settings = Signature.of(load_command(name)).settings
        for option in describe(settings) if settings else ():
            parts = option.key.split(".")
            linked = {f"`{'.'.join(parts[:end])}.*`" for end in range(1, len(parts))}
            entries = f"### {option.key}.NAME ("  # a mapping of named settings has a section
            found = f"| `{option.key}` |" in page or entries in page
            assert found or any(link in page for link in linked), option.key


def test_a_setting_stands_with_type_bounds_and_default() -> None:
    page = generated("settings_reference")
    (row, *_) = [line for line in page.splitlines() if line.startswith("| `trainer.devices` |")]
    assert row.startswith("| `trainer.devices` | a whole number of at least 1 | `1` | ")


def test_the_python_page_has_every_public_name() -> None:
    page = generated("python_reference")
    packages = sys.modules["python_reference"].PACKAGES
    for package in packages:
        for name in importlib.import_module(package).__all__:
            assert f"### {name}\n" in page, f"{package}.{name}"


def test_the_page_of_checks_has_every_kind_of_fault_with_its_severity() -> None:
    page = generated("kinds_reference")
    for slug, kind in KINDS.items():
        assert f"| `{slug}` | {kind.severity} | " in page


def test_a_mark_that_names_no_generator_ends_the_build() -> None:
    fill = importlib.import_module("generated_pages").fill
    assert "## vitrine demo" in fill("<!-- generated: commands -->")
    with pytest.raises(KeyError):
        fill("<!-- generated: nothing -->")
