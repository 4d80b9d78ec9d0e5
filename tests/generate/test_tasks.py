"""What is written about an item, and that its words come from where a task says."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.errors import VitrineError
from catalog.interactions import Interactions
from catalog.splits import make_split
from generate.attributes import attribute_columns
from generate.next_items import NextItemPairs
from generate.text.keywords import KeywordIndex, extract_words
from generate.text.task_texts import TaskTexts, tasks_with_texts
from generate.text.tasks import Task, load_task

COLOURS = ["black", "Black", "red", "blue", "red", "green", "black", "blue"]
KINDS = ["coat", "coat", "hat", "hat", "scarf", "scarf", "coat", "hat"]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """One person takes black coats and one hat, another hats; each said something once."""
    number = len(COLOURS)
    texts = [
        f"A {colour.lower()} {kind}. It wears well."
        for colour, kind in zip(COLOURS, KINDS, strict=True)
    ]
    texts[2] = None
    items = {
        "item_id": [f"i{row}" for row in range(number)],
        "title": [f"The {kind}" for kind in KINDS],
        "text": texts,
        "category": KINDS,
        "price": [10.0 + row for row in range(number)],
        "image": [None] * number,
    }
    columns = {
        "item_id": items["item_id"],
        "name": items["title"],
        "description": texts,
        "colour": COLOURS,
        "kind": KINDS,
        "sort": KINDS,
        "weight": [0.5 * row for row in range(number)],
        "made_in": ["here"] * number,
        "barcode": [str(10_000 + row) for row in range(number)],
    }
    return Catalog(
        name="clothes",
        folder=Path(),
        fingerprint="0",
        content_fingerprint="0",
        columns=pa.table({name: pa.array(values) for name, values in columns.items()}),
        items=Dataset.from_dict(items),
        user_ids=np.array(["a", "b"]),
        interactions=Interactions(
            offsets=np.array([0, 4, 8]),
            items=np.array([0, 1, 3, 6, 2, 3, 7, 0], dtype=np.int32),
            times=np.arange(8),
            reviews=["  warm  ", None, None, None, None, None, None, "too big"],
        ),
        roles={"items": {"item_id": "item_id", "title": "name", "text": "description"}},
    )


def text(catalog: Catalog, task: str | Task, user: int, position: int) -> str | None:
    found = task if isinstance(task, Task) else load_task(task)
    texts = TaskTexts(catalog, [found])
    return texts.texts_of(found.name, np.array([user]), np.array([position]))[0]


@pytest.mark.parametrize(
    ("task", "user", "position", "wanted"),
    [
        ("title", 0, 0, "The coat"),
        ("description", 0, 0, "The coat. A black coat. It wears well."),
        ("description", 1, 0, "The hat"),  # it has no text
        ("headline", 0, 0, "A black coat."),
        ("headline", 1, 0, "The hat"),
        ("review", 0, 0, "warm"),
        ("review", 0, 1, None),
        ("reason", 1, 3, "too big"),
        ("reason", 0, 3, "because you often choose black and coat"),
        ("reason", 0, 1, None),  # of one item nothing can be said yet
    ],
)
def test_the_first_template_whose_fields_are_known_gives_the_text(
    catalog: Catalog, task: str, user: int, position: int, wanted: str | None
) -> None:
    assert text(catalog, task, user, position) == wanted


def test_text_appended_to_a_title_is_not_a_training_text(catalog: Catalog) -> None:
    long = "The coat that is warm " + "and worn by many " * 4 + "and say nothing of the hat"
    titles = pa.array([long, *(f"The {kind}" for kind in KINDS[1:])])
    items = catalog.items.remove_columns("title").add_column("title", titles.to_pylist())
    poisoned = replace(catalog, items=items, roles={})
    for task in ("title", "description"):
        said = text(poisoned, task, 0, 0)
        assert said is not None
        assert said.startswith("The coat that is warm"), task
        assert " hat" not in said, task


def test_a_reason_ignores_later_interactions(catalog: Catalog) -> None:
    taken = catalog.interactions
    swapped = taken.items.copy()
    swapped[3] = 5  # what the first person takes last
    other = replace(catalog, interactions=replace(taken, items=swapped))
    assert text(catalog, "reason", 0, 2) == text(other, "reason", 0, 2)


def test_attributes_are_columns_of_few_short_values(catalog: Catalog) -> None:
    """Not names, numbers with fractions, what all items share, nor the same column twice."""
    found = [name for name, _ in attribute_columns(catalog)]
    assert found == ["colour", "kind"]
    large = pa.concat_tables([catalog.columns] * 20)
    large = large.set_column(8, "barcode", pa.array([str(n) for n in range(len(large))]))
    many = replace(catalog, columns=large, items=concatenate_datasets([catalog.items] * 20))
    found = [name for name, _ in attribute_columns(many)]
    assert found == ["colour", "kind"], "nor sentences that repeat"


def test_keywords_are_values_and_then_rare_words(catalog: Catalog) -> None:
    coloured = replace(catalog, columns=catalog.columns.select(["item_id", "colour"]))
    assert KeywordIndex(coloured).keywords(0) == ("black",), "of eight items no other word is rare"
    keyword_index = KeywordIndex(coloured, max_document_share=0.4)
    assert keyword_index.keywords(0) == ("black", "coat"), (
        "three of eight are coats; wears is everywhere"
    )
    assert keyword_index.keywords(3) == ("blue", "hat")
    assert keyword_index.attribute_values(3) == {"colour": ["blue"]}


def test_words_exclude_numbers_and_quotes() -> None:
    assert extract_words("A 'navy' hat, 500ml, 3xl, navy's, polka-dot, it’s x") == [
        *("navy", "hat", "navy", "polka-dot", "it")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "line 1: "),
        ("templates: ['{title}']\ntemplates: ['{text}']", "line 2: the key 'templates'"),
        ("description: x", "it takes `description`, one line, `templates`"),
        ("templates: []", "it takes `description`"),
        ("templates: [always the same]", "with at least one {field}"),
        ("templates: ['{title']", "a template is malformed"),
        ("templates: ['{price:.2f}']", "names alone, without `:` or `!`"),
        ("templates: ['{title!x}']", "names alone"),
        ("{templates: ['{title}'], more: 1}", "it takes `description`"),
    ],
)
def test_an_invalid_task_file_gives_an_error_of_one_line(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(VitrineError, match=re.escape(message)) as error:
        load_task(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_custom_task_is_a_file(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "label.yaml"
    path.write_text("description: what hangs on it\ntemplates: '{colour} {title}, {price}'\n")
    task = load_task(str(path))
    assert (task.name, task.description, task.personal) == ("label", "what hangs on it", False)
    assert text(catalog, task, 0, 2) == "blue The hat, 13"
    pairs = NextItemPairs(catalog, make_split(catalog, SplitConfig(kind="leave-one-out")))
    texts, without = tasks_with_texts(catalog, ("title", str(path)), pairs)
    assert (list(texts.tasks), without) == (["title", "label"], ())
    path.write_text("templates: '{color} {title}'\n")
    with pytest.raises(VitrineError, match=r"\{color\}, which the catalog clothes .*'colour'"):
        TaskTexts(catalog, [load_task(str(path))])


def test_a_misspelt_task_is_reported_with_the_nearest() -> None:
    with pytest.raises(VitrineError, match=r"'titel' is unknown; .* Did you mean 'title'\?"):
        load_task("titel")
    with pytest.raises(VitrineError, match=r"nowhere\.yaml cannot be read"):
        load_task("nowhere.yaml")
