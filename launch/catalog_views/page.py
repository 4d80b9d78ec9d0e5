"""The doctor's report as one self-contained HTML page."""

from catalog.catalog import Catalog
from catalog.doctor.finding import NAMED, CheckReport, Finding
from catalog.doctor.kinds import KINDS, SEVERITIES, Severity
from launch.catalog_views.bars import bar_chart
from launch.report.charts import chart_figure
from launch.report.contents import ItemCard
from launch.report.gallery import item_figure, window
from launch.report.item_cards import small_jpeg
from launch.report.markup import Html, count, tag
from launch.report.page import document

THUMBNAIL = 160
"""Longer side of an embedded image in pixels."""
SAMPLED = 12
"""Items that the page begins with."""
SHOWN_TEXT = 160
"""Characters of a title at most."""
SHORT_FACT = 40
"""Characters of a fact that stands in a column; longer ones have a row of their own."""
WORDS: dict[Severity, tuple[str, str, str]] = {
    "error": ("Errors", "unmet", "✗"),
    "warning": ("To look at", "unmet", "!"),
    "hint": ("Hints", "met", "i"),
}
"""Severity → heading, look and sign."""


def doctor_page(report: CheckReport) -> str:
    """The page: a sample of the items, the findings by severity, distributions, how the tables were read."""
    sections = [
        ("items", "The catalog", _catalog(report)),
        *((one, WORDS[one][0], _findings(report, one)) for one in SEVERITIES),
        ("distributions", "Distributions", _distributions(report)),
        ("facts", "Facts", _facts(report)),
        ("notes", "How it was read", _notes(report)),
    ]
    hero = [
        tag("p", "Vitrine", class_="brand"),
        tag("h1", report.name, dir="auto"),
        tag("p", summary(report), class_="lead"),
    ]
    footer = tag("p", "Written by vitrine catalog check. Each finding shows up to three examples.")
    return document(f"{report.name}: catalog check", hero, sections, footer)


def summary(report: CheckReport) -> str:
    """One sentence: how much there is to do."""
    if report.ok:
        return "No faults found."
    nouns = {"error": "error", "warning": "thing to look at", "hint": "hint"}
    parts = []
    for severity in SEVERITIES:
        number = sum(one.severity == severity for one in report.findings)
        noun = nouns[severity]
        plural = noun.replace("thing", "things") if "thing" in noun else f"{noun}s"
        if number:
            parts.append(f"{number} {noun if number == 1 else plural}")
    return f"{', '.join(parts)}."


def _catalog(report: CheckReport) -> list[Html]:
    catalog = report.catalog
    if catalog is None:
        return []
    items = spread(catalog.num_items, SAMPLED)
    lead = tag("p", "A sample of the items, evenly spaced over the table.", class_="lead")
    return [lead, window([card(catalog, item) for item in items])]


def spread(total: int, number: int) -> list[int]:
    """Up to `number` rows of `total`, evenly spaced."""
    number = min(total, number)
    return [place * total // number for place in range(number)]


def card(catalog: Catalog, item: int) -> ItemCard:
    """An item with a small JPEG of its image."""
    row = catalog.items[item]
    title = (row["title"] or row["text"] or "(no text)")[:SHOWN_TEXT]
    image = small_jpeg(row["image"], THUMBNAIL, quality=80) if row["image"] else None
    return ItemCard(title=title, category=row["item_id"], image=image)


def _findings(report: CheckReport, severity: Severity) -> list[Html]:
    found = [one for one in report.findings if one.severity == severity]
    if not found:
        return []
    return [tag("ul", [_finding(report, one) for one in found], class_="findings")]


def _finding(report: CheckReport, finding: Finding) -> Html:
    _, look, sign = WORDS[finding.severity]
    affected = "" if finding.unit == "catalog" else f"{count(finding.count)} {finding.unit}"
    head = [
        tag(
            "span",
            tag("span", sign, class_="sign", aria_hidden="true"),
            finding.kind,
            class_="mark",
        ),
        tag("span", affected, class_="quiet"),
    ]
    return tag(
        "li",
        tag("p", head, class_="head"),
        tag("p", finding.what, class_="what", dir="auto"),
        tag("p", tag("span", "→ ", aria_hidden="true"), finding.remedy, class_="remedy"),
        tag("p", tag("strong", "Rule: "), KINDS[finding.kind].rule, ".", class_="quiet"),
        _examples(report.catalog, finding),
        class_=f"finding {look}",
    )


def _examples(catalog: Catalog | None, finding: Finding) -> Html | None:
    """Cards of the example items; of an interaction its item's."""
    if catalog is None or finding.unit not in ("items", "interactions"):
        return None
    if finding.unit == "items":
        items = [catalog.item_index(one) for one in finding.examples]
    else:
        items = [int(catalog.interactions.items[row]) for row in finding.rows[:NAMED]]
    if not items:
        return None
    cards = [tag("li", item_figure(card(catalog, item))) for item in items]
    return tag("ul", cards, class_="strip")


def _distributions(report: CheckReport) -> list[Html]:
    charts = [chart_figure(one.title, one.unit, bar_chart(one)) for one in report.distributions]
    return [tag("div", charts, class_="charts")] if charts else []


def _facts(report: CheckReport) -> list[Html]:
    pairs = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", value, dir="auto"),
            class_="long" if len(value) > SHORT_FACT else None,
        )
        for name, value in report.facts.items()
    ]
    return [tag("dl", pairs, class_="facts")]


def _notes(report: CheckReport) -> list[Html]:
    if not report.notes:
        return []
    return [tag("ul", [tag("li", str(note), dir="auto") for note in report.notes], class_="notes")]
