"""Settings: defaults, then a file, then the command line; mistakes are answered with the remedy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.config import Bounds, Fraction, NonNegativeInt
from catalog.errors import VitrineError
from catalog.yaml_files import dump_yaml, parse_yaml
from finetune.config import ArmConfig
from launch.arguments import Signature
from launch.cli import COMMANDS, load_command
from launch.memory_plan.config import STAGES
from launch.settings import (
    apply_overrides,
    describe,
    find_config,
    load_settings,
    required_fields,
    shipped_configs,
    to_dict,
)
from pretrain.config import ModalityConfig


@dataclass(frozen=True)
class Tower:
    width: int = 8
    """Numbers in a vector."""
    config: dict[str, Any] = field(default_factory=lambda: {"kind": "bert", "layers": 2})


@dataclass(frozen=True)
class Training:
    max_steps: NonNegativeInt = 100
    """How long, in
    steps."""
    rate: Annotated[float, Bounds(0, 1, low_open=True, high_open=True)] = 1e-3
    share: Fraction | None = None
    strategy: Literal["auto", "ddp"] = "auto"


@dataclass(frozen=True)
class Settings:
    title: str = "shop"
    user: str | None = None
    text: Tower | None = field(default_factory=Tower)
    image: Tower | None = None
    training: Training = field(default_factory=lambda: Training(max_steps=400))
    tasks: tuple[str, ...] = ("describe", "review")
    roles: dict[str, Any] | None = None
    arms: dict[str, Training] = field(default_factory=dict)
    shuffle: bool = True


@dataclass(frozen=True)
class Weights:
    count: int = 0
    weight: float = 0.0


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
    assert load_settings(Settings, write("training: {rate: .1}"), []).training.max_steps == 400
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
    settings = load_settings(Settings, path, ["--arms.lora.rate", ".5"])
    assert settings.arms == {"lora": Training(max_steps=3, rate=0.5), "frozen": Training()}
    with pytest.raises(VitrineError, match=r"'arms.lora.ratte'.*'arms.lora.rate'"):
        load_settings(Settings, write("arms: {lora: {ratte: 3}}"), [])


def test_lists_are_written_as_in_yaml() -> None:
    assert apply_overrides(Settings(), ["--tasks", "[review]"]).tasks == ("review",)
    texts = apply_overrides(Settings(), ["--tasks", "[007, null, no, 'a, b']"]).tasks
    assert texts == ("007", "null", "no", "a, b")


def test_sections_are_given_whole_on_the_command_line_as_in_a_file(write) -> None:
    text = "{lora: {max_steps: 3, rate: 1e-12}, frozen: }"
    given = apply_overrides(Settings(), [f"--arms={text}"])
    assert given == load_settings(Settings, write(f"arms: {text}"), [])
    assert given.arms == {"lora": Training(max_steps=3, rate=1e-12), "frozen": Training()}
    assert apply_overrides(Settings(), ["--training={max_steps: 3}"]).training == Training(3)


@settings(deadline=None)
@given(text=st.text())
def test_any_text_for_a_field_of_text_arrives_unchanged(text: str) -> None:
    read = apply_overrides(Settings(), [f"--title={text}", f"--user={text}"])
    assert (read.title, read.user) == (text, text)
    if not text.startswith("--"):
        assert apply_overrides(Settings(), ["--user", text]).user == text


@pytest.mark.parametrize(
    "text", ["#5", "null", "~", "", "0123", "no", "[", "{a", "1e-12", "- x", " "]
)
def test_a_text_that_means_something_in_yaml_is_a_text_on_the_command_line(text: str) -> None:
    assert apply_overrides(Settings(), ["--user", text]).user == text


@settings(deadline=None)
@given(text=st.text())
def test_any_text_in_a_file_arrives_unchanged(text: str, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.yaml"
    quoted = yaml.safe_dump({"title": text, "tasks": [text]}, default_style='"')
    path.write_text(quoted, encoding="utf-8")
    read = load_settings(Settings, path, [])
    assert (read.title, read.tasks) == (text, (text,))
    path.write_text(dump_yaml([{"title": text, "user": text}]), encoding="utf-8")
    read = load_settings(Settings, path, [])
    assert (read.title, read.user) == (text, text)


@settings(deadline=None)
@given(
    text=st.from_regex(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,2})?", fullmatch=True)
)
def test_every_number_of_yaml_is_a_number(text: str) -> None:
    assert apply_overrides(Weights(), [f"--weight={text}"]).weight == float(text)
    assert float(parse_yaml(f"weight: {text}", "here")["weight"]) == float(text)


@settings(deadline=None)
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_python_s_way_to_write_a_number_is_read(number: float) -> None:
    assert apply_overrides(Weights(), [f"--weight={number!r}"]).weight == number


@settings(deadline=None)
@given(number=st.integers(0, 10**30), sign=st.sampled_from(["", "-", "+", "0", "-0"]))
def test_a_whole_number_is_read_to_the_last_digit(number: int, sign: str) -> None:
    read = apply_overrides(Weights(), [f"--count={sign}{number}", f"--weight={sign}{number}"])
    signed = -number if "-" in sign else number
    assert read == Weights(signed, float(signed))


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
            "'training.max_steps' is 'many' on the command line; expected a whole number",
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
        ("--title", "--title has no value; write --title VALUE, or --title=VALUE where it begins"),
        ("--training.max_steps=[", "'training.max_steps' on the command line, line 1: "),
        (
            "--training.max_steps=-1",
            "is -1 on the command line; expected a whole number of at least 0.",
        ),
        ("--training.rate=.nan", "expected a number above 0 and below 1."),
        ("--training.rate=1", "expected a number above 0 and below 1."),
        ("--training.rate=-.inf", "'training.rate' is -inf on the command line; expected a number"),
        ("--training.share=1.5", "expected a number from 0 to 1 or null."),
        ("--training.max_steps=1e3", "expected a whole number"),
        ("--training.max_steps=true", "expected a whole number"),
        ("--arms={x: {rate: {}}}", "'arms.x.rate' is {} on the command line; expected a number"),
        ("--arms={x: 3}", "'arms.x' is 3 on the command line; expected settings of its own"),
        ("--arms={7: {}}", "'arms' has an entry 7 on the command line; a name is text"),
        ("--arms={x: {}, x: {}}", "line 1: the key 'x' stands there again, after line 1"),
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
        (
            "training:\n  rate: .1\n  rate: .2",
            "{path}, line 3: the key 'rate' stands there again, after line 2; keep one of them",
        ),
        ("title: a\narms: {}\n'title': b", "{path}, line 3: the key 'title' stands there again"),
        ("training: {rate: -.inf}", "'training.rate' is -inf in {path}; expected a number above 0"),
        ("training: {max_steps: 99999999999999999999.}", "expected a whole number of at least 0."),
        ("training: {rate: " + 400 * "9" + "}", "expected a number above 0 and below 1."),
        ("training: {rate: '.5'}", "'training.rate' is '.5' in {path}; expected a number"),
        ("shuffle: 1", "expected true or false."),
        ("arms: {7: {}}", "a name is text, so write '7' in quotes."),
    ],
)
def test_a_mistake_in_a_file_names_the_file(write, content, message) -> None:
    path = write(content)
    with pytest.raises(VitrineError) as caught:
        load_settings(Settings, path, [])
    assert message.format(path=path) in str(caught.value)


UNBOUNDED = {"min_rating", "layer"}
"""Whatever a shop's ratings are; and layers may be counted from the end."""


def numbers() -> dict[tuple[type, str], Any]:
    """The numeric settings and options of every command: (class, key) → type."""
    found: dict[tuple[type, str], Any] = {}
    for name in COMMANDS:
        signature = Signature.of(load_command(name))
        classes = [
            signature.options,
            signature.settings,
            *STAGES.values(),
            ArmConfig,
            ModalityConfig,
        ]
        for cls in filter(None, classes):
            for option in describe(cls):
                if option.kind.startswith(("a number", "a whole number")):
                    found[cls, option.key] = option
    return found


def test_no_number_is_below_its_bounds_or_not_finite() -> None:
    assert len(numbers()) > 200
    for cls, key in numbers():
        blank = cls(**dict.fromkeys(required_fields(cls), ""))
        for wrong in (".nan", ".inf", "-.inf", "-1"):
            if wrong == "-1" and key.endswith(tuple(UNBOUNDED)):
                continue
            with pytest.raises(VitrineError) as caught:
                pytest.fail(f"{key}: {apply_overrides(blank, [f'--{key}={wrong}'])}")
            assert f"'{key}' is " in str(caught.value)


def test_every_default_is_within_its_bounds() -> None:
    for (cls, key), option in numbers().items():
        blank = cls(**dict.fromkeys(required_fields(cls), ""))
        if option.default is not None:
            assert apply_overrides(blank, [f"--{key}={option.default!r}"])


def test_a_config_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(VitrineError, match=r"no config 'nowhere/nothing\.yaml': it is"):
        find_config("nowhere/nothing.yaml")


def test_shipped_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_configs()
    for path in shipped_configs():
        name = path.as_posix().split("/configs/")[-1]
        assert find_config(name) == find_config(name.removesuffix(".yaml")) == path


def test_help_shows_the_string_beneath_a_field() -> None:
    options = {option.key: option for option in describe(Settings)}
    assert options["training.max_steps"].doc == "How long, in steps."
    assert options["training.max_steps"].default == 400
    assert options["image.width"].doc == "Numbers in a vector."


def test_settings_become_plain_data_and_come_back(write) -> None:
    settings = apply_overrides(Settings(), ["--arms.a.rate", ".2", "--text", "null"])
    assert to_dict(settings)["tasks"] == ["describe", "review"]
    assert load_settings(Settings, write(yaml.safe_dump(to_dict(settings))), []) == settings
