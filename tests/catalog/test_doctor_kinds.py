"""The doctor finds each kind of fault in the items and interactions that have it, and in no others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog.config import CatalogConfig
from catalog.doctor.finding import CheckReport, report_json
from catalog.doctor.kinds import KINDS, SEVERITIES
from catalog.doctor.personal import is_card, is_iban
from catalog.doctor.run import check_catalog, format_report
from catalog.errors import VitrineError

NOW = 1_750_000_000
NUM_ITEMS, NUM_USERS = 40, 300
WORDS = ("oak", "steel", "linen", "blue", "tall", "round", "bright", "plain", "soft", "wide")
Rows = list[dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckReport]:
    """Examines a clean catalog whose items and rows a test changes."""

    def run(
        items: Callable[[Rows], None] = lambda rows: None,
        rows: Callable[[Rows], None] = lambda rows: None,
        pictures: Callable[[list[Path]], None] | None = None,
        **options: Any,
    ) -> CheckReport:
        rng = np.random.default_rng(0)
        table: Rows = [
            {
                "item_id": f"sku-{1000 + n}",
                "title": " ".join([*rng.choice(WORDS, 4), f"number{n}"]),
                "description": " ".join([*rng.choice(WORDS, 3), f"part{n} piece{n} kind{n}"]),
                "category": f"c{n % 4}",
                "price": round(float(np.exp(rng.normal(3, 0.4))), 2),
            }
            for n in range(NUM_ITEMS)
        ]
        log: Rows = [
            {
                "user_id": f"u{u}",
                "item_id": f"sku-{1000 + (u * 7 + n * 3) % NUM_ITEMS}",
                "timestamp": 1_600_000_000 + 1000 * u + 100_000 * n * n + 17 * (u % 13) * n,
            }
            for u in range(NUM_USERS)
            for n in range(4)
        ]
        items(table)
        rows(log)
        if pictures is not None:
            paths = [tmp_path / f"{n}.png" for n in range(NUM_ITEMS)]
            for n, path in enumerate(paths):
                noise = np.random.default_rng(n).integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(noise).resize((100, 100)).save(path)
                table[n]["image"] = path.name
            pictures(paths)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table)
        (tmp_path / "items.jsonl").write_text(lines, encoding="utf8")
        lines = "".join(json.dumps(row) + "\n" for row in log)
        (tmp_path / "interactions.jsonl").write_text(lines, encoding="utf8")
        return check_catalog(CatalogConfig(str(tmp_path)), now=NOW, **options)

    return run


def kinds(report: CheckReport) -> set[str]:
    return {one.kind for one in report.findings}


def test_the_clean_catalog_has_no_finding(check) -> None:
    assert check(pictures=lambda paths: None).findings == []


TEXTS = [
    ("short-texts", {"title": "X1", "description": None}),
    ("empty-texts", {"title": None, "description": None}),
    ("long-texts", {"description": "word " * 3000}),
    ("html-in-texts", {"description": "soft &amp;lt;b&amp;gt;new"}),
    ("mojibake", {"title": "Café crème".encode().decode("cp1252")}),
    ("mojibake", {"title": "5 €".encode().decode("cp1252")}),
    ("placeholder-texts", {"description": "N/A"}),
    ("placeholder-texts", {"title": "Lorem ipsum dolor sit amet"}),
    ("ids-in-texts", {"title": "lamp, see sku-1007"}),
    ("e-mail-addresses", {"title": "lamp, ask ann@shop.example.org"}),
    ("phone-numbers", {"title": "lamp, call +49 30 1234567"}),
    ("payment-numbers", {"title": "lamp, pay DE89370400440532013000"}),
    ("payment-numbers", {"title": "lamp, pay 4111 1111 1111 1111 now"}),
    ("ip-addresses", {"title": "lamp of 192.168.17.4"}),
    ("mixed-scripts", {"title": "лампа настольная белая", "description": None}),
    ("nonpositive-prices", {"price": 0.0}),
    ("price-outliers", {"price": 20_000.0}),
]


@pytest.mark.parametrize(("kind", "change"), TEXTS)
def test_a_fault_of_an_item_is_found_there_and_nowhere_else(check, kind: str, change: dict) -> None:
    report = check(items=lambda rows: rows[5].update(change))
    assert report.rows(kind).tolist() == [5]
    assert kinds(report) == {kind}
    (finding,) = report.findings
    assert finding.examples == ("sku-1005",)
    assert "sku-1005" in finding.what
    assert finding.remedy


def test_texts_in_another_language_than_most_are_found(check) -> None:
    german = "Ein weiches Hemd aus Baumwolle mit langen Ärmeln für kühle Abende"

    def change(rows: Rows) -> None:
        for place in (3, 8, 21):
            rows[place]["title"] = f"{german} {place}"

    assert check(items=change).rows("mixed-languages").tolist() == [3, 8, 21]


@pytest.mark.parametrize(
    "title",
    [
        "Fish & Chips <3 a < b",
        "the fiancé’s cafés",
        "la qualité…” disent-ils",
        "Nothing is unknown",
        "version 1.12.3.4 of it",
        "EAN 4006381333931 and 1234 5678 9012 3456",
        "call 555 1234",
        "sku-1005 itself",
        "No 5 at 12:30, 2.10.2020",
    ],
)
def test_an_ordinary_text_is_no_fault(check, title: str) -> None:
    assert check(items=lambda rows: rows[5].update(title=title)).findings == []


def test_near_duplicate_texts_are_found_in_pairs(check) -> None:
    def change(rows: Rows) -> None:
        text = "a tall lamp of brushed steel with a linen shade that turns all the way round"
        rows[3].update(title=text, description=None)
        rows[9].update(title=text.replace("brushed", "painted"), description=None)

    report = check(items=change)
    assert report.rows("near-duplicate-texts").tolist() == [3, 9]
    assert kinds(report) == {"near-duplicate-texts"}


def test_a_sentence_of_many_texts_is_boilerplate(check) -> None:
    def change(rows: Rows) -> None:
        for row in rows[:12]:
            row["description"] += ". We ship to all countries for free."

    report = check(items=change)
    assert report.rows("boilerplate-texts").tolist() == list(range(12))


def test_unknown_tokens_need_a_tokenizer(check, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: n + 1 for n, word in enumerate(WORDS)} | {"[UNK]": 0}
    words |= {
        f"{stem}{n}": 100 + n for stem in ("number", "part", "piece", "kind") for n in range(40)
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def change(rows: Rows) -> None:
        rows[5].update(title="zinc brass copper", description=None)
        for row in rows:
            row["title"] = row["title"].replace(" number", " . number") if row["title"] else None

    report = check(items=change, tokenizer=str(tmp_path))
    assert 5 in report.rows("unknown-tokens")
    with pytest.raises(VitrineError, match="no tokenizer could be read"):
        check(tokenizer=str(tmp_path / "missing"))


def save(paths: list[Path], image: Image.Image, *places: int) -> None:
    for place in places:
        image.save(paths[place])


PICTURES = [
    ("flat-images", [4], lambda p: save(p, Image.new("RGB", (90, 90), (9, 99, 9)), 4)),
    ("tiny-images", [4], lambda p: save(p, Image.open(p[4]).resize((40, 50)), 4)),
    ("extreme-aspect", [4], lambda p: save(p, Image.open(p[4]).resize((500, 80)), 4)),
    ("broken-images", [4], lambda p: p[4].write_bytes(p[4].read_bytes()[:500])),
    ("duplicate-images", [4, 8], lambda p: p[8].write_bytes(p[4].read_bytes())),
    ("near-duplicate-images", [4, 8], lambda p: save(p, Image.open(p[4]).resize((80, 80)), 8)),
]


@pytest.mark.parametrize(("kind", "rows", "change"), PICTURES)
def test_a_fault_of_a_picture_is_found(check, kind: str, rows: list[int], change: Any) -> None:
    report = check(pictures=change)
    assert report.rows(kind).tolist() == rows
    assert kinds(report) == {kind}


def test_a_picture_of_many_items_is_a_placeholder(check) -> None:
    def change(paths: list[Path]) -> None:
        for path in paths[1:6]:
            path.write_bytes(paths[0].read_bytes())

    report = check(pictures=change)
    assert report.rows("placeholder-images").tolist() == list(range(6))


def test_pictures_that_fit_their_text_badly_are_a_hint(check) -> None:
    mismatch = np.full(NUM_ITEMS, 0.01, np.float32)
    mismatch[[3, 7]], mismatch[9] = (0.8, 0.9), np.nan
    report = check(mismatch=mismatch)
    (finding,) = report.findings
    assert finding.severity == "hint"
    assert finding.rows.tolist() == [3, 7]
    assert finding.examples[0] == "sku-1007", "the worst comes first"


def times(user: str, values: list[int]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["user_id"] != user]
        rows += [
            {"user_id": user, "item_id": f"sku-{1000 + n % NUM_ITEMS}", "timestamp": value}
            for n, value in enumerate(values)
        ]

    return change


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("burst-users", [1_600_000_000 + (n * n) % 59 for n in range(60)]),
        ("regular-users", [1_600_000_000 + 50_000 * n for n in range(10)]),
    ],
)
def test_an_unusual_user_is_found(check, kind: str, values: list[int]) -> None:
    report = check(rows=times("u7", values))
    assert [report.catalog.user_ids[row] for row in report.rows(kind, "users")] == ["u7"]
    assert kinds(report) == {kind}


def test_impossible_times_are_found(check) -> None:
    def change(rows: Rows) -> None:
        rows[3]["timestamp"] = NOW + 2 * 86_400
        rows[9]["timestamp"] = 0

    report = check(rows=change)
    assert kinds(report) == {"future-interactions", "ancient-interactions"}
    assert [one.severity for one in report.findings] == ["error", "warning"]
    (row,) = report.rows("ancient-interactions", "interactions")
    assert report.catalog.interactions.times[row] == 0


def test_equal_times_are_found_where_many_users_have_them(check) -> None:
    def change(rows: Rows) -> None:
        for row in rows:
            if int(row["user_id"][1:]) < 30:
                row["timestamp"] = 1_600_000_000 + int(row["user_id"][1:])

    assert len(check(rows=change).rows("equal-times", "users")) == 30


def test_an_interaction_in_two_parts_of_the_given_split_is_found(check) -> None:
    def change(rows: Rows) -> None:
        for place, row in enumerate(rows):
            row["split"] = "test" if place % 4 == 3 else "train"
        rows.append({**rows[7], "split": "train"})

    report = check(rows=change)
    (row,) = report.rows("split-overlap", "interactions")
    assert report.catalog.user_ids[1] == "u1"
    assert row in range(4, 9)


def test_few_test_targets_come_with_a_split_that_has_more(check) -> None:
    def change(rows: Rows) -> None:
        for row in rows[:-60]:
            row["timestamp"] -= 50_000_000

    (finding,) = check(rows=change).findings
    assert finding.kind == "few-test-targets"
    assert "split.kind: leave-one-out has 300" in finding.remedy


def test_ids_in_the_order_of_popularity_are_a_hint(check) -> None:
    def change(rows: Rows) -> None:
        rows += [{"item_id": f"x{n}", "title": f"extra thing{n} {n}x"} for n in range(60)]

    def buy(rows: Rows) -> None:
        for n in range(60):
            rows += [{**rows[m], "item_id": f"x{n}"} for m in range(n)]
        for place, row in enumerate(rows):
            row["item_id"] = row["item_id"] if place >= 1200 else f"x{place % 3 + 57}"

    assert "id-order" not in kinds(check())
    assert "id-order" in kinds(check(items=change, rows=buy))


def test_users_and_items_with_few_interactions_are_hints(check) -> None:
    def change(rows: Rows) -> None:
        rows += [{**rows[0], "user_id": f"once{n}"} for n in range(400)]
        for row in rows:
            row["item_id"] = f"sku-{1000 + int(row['item_id'][4:]) % 30}"

    report = check(rows=change)
    assert {"single-interaction-users", "never-interacted"} <= kinds(report)
    assert report.rows("never-interacted").tolist() == list(range(30, 40))


def test_findings_come_by_severity_in_text_and_json(check) -> None:
    def change(rows: Rows) -> None:
        rows[5].update(title="лампа настольная", description=None)
        rows[6].update(title="see <b", price=-3.0)

    report = check(items=change, rows=lambda rows: rows[0].update(timestamp=NOW * 2))
    severities = [one.severity for one in report.findings]
    assert severities == sorted(severities, key=SEVERITIES.index)
    assert [len(report.at_least(one)) for one in SEVERITIES] == [1, 2, 3]
    text = format_report(report)
    assert text.index("Errors (1)") < text.index("To look at (1)") < text.index("Hints (1)")
    content = json.loads(report_json(report))
    assert content["schema"] == 1
    assert [one["kind"] for one in content["findings"]] == [one.kind for one in report.findings]
    assert content["findings"][1]["examples"] == ["sku-1006"]
    assert "rows" not in content["findings"][0]


@pytest.mark.parametrize(
    ("number", "right"),
    [
        ("DE89370400440532013000", True),
        ("DE88370400440532013000", False),
        ("GB82 WEST 1234 5698 7654 32", True),
    ],
)
def test_an_iban_is_recognized_by_its_check_digits(number: str, right: bool) -> None:
    assert is_iban(number) == right


@pytest.mark.parametrize(
    ("number", "right"),
    [
        ("4111 1111 1111 1111", True),
        ("4111111111111112", False),
        ("378282246310005", True),
        ("1111111111111117", False),
    ],
)
def test_a_card_is_recognized_by_its_beginning_and_check_digit(number: str, right: bool) -> None:
    assert is_card(number) == right


def test_every_kind_has_a_rule_and_a_remedy() -> None:
    assert len(KINDS) >= 45
    for slug, kind in KINDS.items():
        assert slug == slug.lower()
        assert kind.rule
        assert kind.remedy
