"""Settings: defaults, then a file, then the command line; mistakes are answered with the remedy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from catalog.errors import VitrineError
from launch.settings import (
    apply_overrides,
    describe,
    find_config,
    load_settings,
    shipped_configs,
    to_dict,
)


@dataclass(frozen=True)
class Tower:
    width: int = 8
    """Numbers in a vector."""
    config: dict[str, Any] = field(default_factory=lambda: {"kind": "bert", "layers": 2})


@dataclass(frozen=True)
class Training:
    max_steps: int = 100
    """How long, in
    steps."""
    rate: float = 1e-3
    strategy: Literal["auto", "ddp"] = "auto"


@dataclass(frozen=True)
class Settings:
    title: str = "shop"
    text: Tower | None = field(default_factory=Tower)
    image: Tower | None = None
    training: Training = field(default_factory=lambda: Training(max_steps=400))
    tasks: tuple[str, ...] = ("describe", "review")
    roles: dict[str, Any] | None = None
    arms: dict[str, Training] = field(default_factory=dict)
    shuffle: bool = True


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_nothing_given_means_the_defaults() -> None:
    assert load_settings(Settings, None, []) == Settings()


def test_the_command_line_overrules_the_file_and_the_file_the_defaults(write) -> None:
    path = write("training: {max_steps: 5, rate: 1e-4}\ntitle: other\n")
    settings = load_settings(Settings, path, ["--training.max_steps", "7", "--title=3"])
    assert settings.training == Training(max_steps=7, rate=1e-4)
    assert settings.title == "3"


def test_a_section_keeps_the_defaults_of_the_class_that_holds_it(write) -> None:
    assert load_settings(Settings, write("training: {rate: 1}"), []).training.max_steps == 400
    assert load_settings(Settings, write("training:\n"), []) == Settings()


def test_a_file_replaces_a_mapping_and_an_override_reaches_inside_it(write) -> None:
    path = write("text: {config: {kind: clip}}")
    assert load_settings(Settings, path, []).text == Tower(config={"kind": "clip"})
    reached = apply_overrides(Settings(), ["--text.config.layers", "3", "--roles.title", "name"])
    assert reached.text == Tower(config={"kind": "bert", "layers": 3})
    assert reached.roles == {"title": "name"}
    deep = apply_overrides(Settings(), ["--roles.a.b", "[1, x]", "--roles.a.c", "2"])
    assert deep.roles == {"a": {"b": [1, "x"], "c": 2}}


def test_optional_sections_are_switched_on_and_off(write) -> None:
    assert load_settings(Settings, write("text: null"), []).text is None
    assert apply_overrides(Settings(), ["--text", "null"]).text is None
    assert apply_overrides(Settings(), ["--image.width", "4"]).image == Tower(width=4)


def test_named_sections_are_added_and_changed(write) -> None:
    path = write("arms: {lora: {max_steps: 3}, frozen: {}}")
    settings = load_settings(Settings, path, ["--arms.lora.rate", "1"])
    assert settings.arms == {"lora": Training(max_steps=3, rate=1.0), "frozen": Training()}
    with pytest.raises(VitrineError, match=r"'arms.lora.ratte'.*'arms.lora.rate'"):
        load_settings(Settings, write("arms: {lora: {ratte: 3}}"), [])


def test_lists_are_written_as_in_yaml() -> None:
    assert apply_overrides(Settings(), ["--tasks", "[review]"]).tasks == ("review",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--training.max_stepz=3",
            "unknown key 'training.max_stepz' on the command line. "
            "Did you mean 'training.max_steps'?",
        ),
        ("--trianing.max_steps=3", "unknown key 'trianing' on the command line. Did you mean 'tr"),
        ("--max_steps=3", "unknown key 'max_steps' on the command line. Did you mean 'training.m"),
        (
            "--training.max_steps=many",
            "'training.max_steps' is 'many' on the command line; expected a whole number.",
        ),
        (
            "--training.rate=fast",
            "'training.rate' is 'fast' on the command line; expected a number",
        ),
        ("--training.strategy=dpp", "expected one of auto, ddp."),
        ("--shuffle=3", "expected true or false."),
        ("--training=3", "expected settings of its own, such as training.max_steps."),
        ("--training.max_steps.x=3", "unknown key 'training.max_steps.x'"),
        ("--tasks=review", "expected a list such as [a, b], each text."),
        ("training.max_steps=3", "unexpected 'training.max_steps=3'; settings are given as --key"),
        ("--title", "--title has no value; write --title VALUE."),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_with_its_remedy(override, message) -> None:
    with pytest.raises(VitrineError) as caught:
        load_settings(Settings, None, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "training: {max_stepz: 3}",
            "unknown key 'training.max_stepz' in {path}. Did you mean 'tr",
        ),
        (
            "training: {max_steps: 1.5}",
            "'training.max_steps' is 1.5 in {path}; expected a whole nu",
        ),
        ("training: 3", "'training' is 3 in {path}; expected settings of its own"),
        ("title: 3", "'title' is 3 in {path}; expected text."),
        ("- 1", "{path} holds a list; expected `key: value` lines."),
        ("title: [", "{path}, line 1: "),
    ],
)
def test_a_mistake_in_a_file_names_the_file(write, content, message) -> None:
    path = write(content)
    with pytest.raises(VitrineError) as caught:
        load_settings(Settings, path, [])
    assert message.format(path=path) in str(caught.value)


def test_a_config_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(VitrineError, match=r"no config 'nowhere/nothing\.yaml': it is"):
        find_config("nowhere/nothing.yaml")


def test_shipped_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_configs()
    for path in shipped_configs():
        name = path.as_posix().split("/configs/")[-1]
        assert find_config(name) == find_config(name.removesuffix(".yaml")) == path


def test_help_says_what_the_string_beneath_a_field_says() -> None:
    options = {option.key: option for option in describe(Settings)}
    assert options["training.max_steps"].doc == "How long, in steps."
    assert options["training.max_steps"].default == 400
    assert options["image.width"].doc == "Numbers in a vector."


def test_settings_become_plain_data_and_come_back(write) -> None:
    import yaml

    settings = apply_overrides(Settings(), ["--arms.a.rate", "2", "--text", "null"])
    assert to_dict(settings)["tasks"] == ["describe", "review"]
    assert load_settings(Settings, write(yaml.safe_dump(to_dict(settings))), []) == settings
