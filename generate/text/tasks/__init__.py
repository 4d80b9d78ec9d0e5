"""Writing tasks: what can be written about an item for a user, as templates over catalog fields.

A task is a YAML file: `description` is one line on what it writes; `instruction`, which may be left out, is
the instruction of a chat model; `templates` is a list, and the first template whose fields all have values
gives the text. The files beside this one are built-in tasks; any other
task is given by the path of its file. A field is a column of the items table, or

    {title} {text} {category} {price}   columns by role; a long title is truncated
    {sentence}                          the first sentence of the text
    {keywords}                          the values and words that distinguish the item
    {review}                            this user's review of it
    {shared}                            the keywords that are frequent in this user's history
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from catalog.errors import VitrineError, did_you_mean
from catalog.yaml_files import read_yaml

HERE = Path(__file__).parent
USER_FIELDS = ("review", "shared")
"""Fields that depend on the user."""
DERIVED = {"sentence": "text", "keywords": "text"}
"""Fields computed from a role of the item."""


@dataclass(frozen=True)
class Task:
    """One kind of text to write."""

    name: str
    description: str
    templates: tuple[str, ...]
    """In order of preference."""
    instruction: str = ""
    """Instruction of a chat model; empty: to write what `description` says."""

    @property
    def request(self) -> str:
        """The instruction of a chat model."""
        return self.instruction or (
            f"Write {self.description or self.name}. Use only the facts given; answer with the text alone."
        )

    @property
    def restated(self) -> frozenset[str]:
        """Roles of the item that the text restates: hidden where texts are learned or their likelihood is
        measured, because to copy them proves nothing."""
        fields = {DERIVED.get(field, field) for field in fields_of(self.templates[0])}
        return frozenset(fields - {"title"} or fields) - set(USER_FIELDS)

    @property
    def speaks_for_the_user(self) -> bool:
        """Whether the text states nothing but what a user says: its own words are no seller's to choose."""
        return self.fields <= set(USER_FIELDS)

    @property
    def fields(self) -> set[str]:
        return {field for template in self.templates for field in fields_of(template)}

    @property
    def personal(self) -> bool:
        """Whether the true text of one item may differ between users."""
        return not self.fields.isdisjoint(USER_FIELDS)


def load_task(name: str) -> Task:
    """Loads a built-in task by its name, or any other task by the path of its YAML file."""
    shipped = {path.stem: path for path in sorted(HERE.glob("*.yaml"))}
    path = shipped.get(name) or Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(shipped)
        raise VitrineError(
            f"task {name!r} is unknown; choose from {known}, or name a file.yaml of your own."
            f"{did_you_mean(name, shipped)}"
        )
    try:
        content = read_yaml(path)
    except OSError as error:
        raise VitrineError(f"the task {path} cannot be read: {error}") from error
    return parse_task(path.stem, content, path)


def parse_task(name: str, content: object, source: object) -> Task:
    """Parses a task from the content of a file; raises VitrineError that names `source` if it is invalid."""
    fault = ""
    templates: list[object] = []
    if (
        not isinstance(content, dict)
        or set(content) - {"description", "templates", "instruction"}
        or not content.get("templates")
    ):
        fault = "it takes `description`, one line, `templates`, a list, and `instruction`"
        content = {}
    else:
        given = content["templates"]
        templates = given if isinstance(given, list) else [given]
        try:
            if not all(isinstance(one, str) and fields_of(one) for one in templates):
                fault = "each of its `templates` is a text with at least one {field}"
            elif any(
                spec or conversion
                for one in templates
                for _, _, spec, conversion in Formatter().parse(str(one))
            ):
                fault = "its fields are names alone, without `:` or `!`"
        except ValueError as error:
            fault = f"a template is malformed ({error})"
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        fault = "its name is small letters, digits and hyphens"
    if fault:
        raise VitrineError(f"{source} is no task: {fault}")
    description, instruction = (
        str(content.get(key) or "") for key in ("description", "instruction")
    )
    return Task(name, description, tuple(map(str, templates)), instruction)


def fields_of(template: str) -> list[str]:
    return [field for _, field, _, _ in Formatter().parse(template) if field is not None]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fills a template with values of its fields; field names may contain dots, such as `made.in`."""
    parts = Formatter().parse(template)
    return "".join(text + ("" if field is None else values[field]) for text, field, _, _ in parts)
