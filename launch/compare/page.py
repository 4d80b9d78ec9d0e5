"""The HTML page of a comparison."""

from finetune.significance import Difference
from launch.compare.results import Comparison, caveats
from launch.report.charts import interval_mark, interval_scale
from launch.report.markup import Html, bounds, decimal, tag
from launch.report.page import document
from launch.report.tables import ranking_table, search_table


def comparison_page(comparison: Comparison) -> str:
    """One self-contained HTML page."""
    ticks = (
        interval_scale([difference.value for _, difference in comparison.contrasts], 0.0)
        if comparison.contrasts
        else []
    )
    heads = ("Contrast", "arm", "against", "difference in NDCG@10", "", "p (Holm)", "reading")
    rows = [
        _contrast_row(label, difference, ticks, caveats(difference, comparison.searches))
        for label, difference in comparison.contrasts
    ]
    table = tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", [tag("th", head, scope="col") for head in heads])),
            tag("tbody", rows),
        ),
        class_="table",
        tabindex=0,
        role="region",
        aria_label="Differences",
    )
    hero = [
        tag("p", "Vitrine", class_="brand"),
        tag("h1", comparison.title, dir="auto"),
        tag("p", _pretraining(comparison), class_="lead"),
    ]
    lead = tag(
        "p",
        "Each line is the difference between two arms over the same users. It is significant where equal ",
        "arms would differ as much, by the draw of users and trainings alone, in fewer than 5 of 100 such ",
        "tables. A circle marks what is not decided: no clear difference, or arms trained only once.",
        class_="lead",
    )
    searches = [search_table(comparison.searches)] if comparison.searches else []
    verdicts = tag("ul", [tag("li", sentence) for sentence in comparison.notes], class_="notes")
    protocol = tag("p", comparison.protocol, class_="protocol")
    sections = [
        ("ranking", "Ranking quality", [ranking_table(comparison.rows), protocol]),
        ("differences", "Differences", [lead, table] if rows else []),
        ("settings", "Hyperparameter search", searches),
        ("verdicts", "Verdicts", [verdicts]),
    ]
    return document(comparison.title, hero, sections, tag("p", "Written by vitrine compare."))


def _pretraining(comparison: Comparison) -> str:
    sentences = [
        s
        for (label, _), s in zip(comparison.contrasts, comparison.sentences, strict=True)
        if label.startswith("pretraining")
    ]
    sentences += comparison.convergence
    return (
        " ".join(sentences) or "No arm here shows whether pretraining helped; compare with scratch."
    )


def _contrast_row(label: str, difference: Difference, ticks: list[float], caveat: str) -> Html:
    looks = {"better": ("✓", "met"), "worse": ("✗", "unmet"), "no difference": ("○", "unclear")}
    sign, look = looks["no difference" if difference.caveat else difference.verdict]
    figure = [
        tag("span", decimal(difference.value.value), class_="value"),
        tag("span", bounds(difference.value), class_="bounds"),
    ]
    return tag(
        "tr",
        tag(
            "th",
            tag("span", label, class_="arm"),
            tag("span", caveat, class_="what") if caveat else None,
            scope="row",
        ),
        tag("td", difference.ours),
        tag("td", difference.theirs),
        tag("td", figure, class_="number"),
        tag("td", interval_mark(difference.value, ticks, "ours", reference=0.0)),
        tag("td", f"{difference.adjusted:.3g}", class_="number"),
        tag("td", tag("span", f"{sign} {difference.verdict}", class_=f"reading {look}")),
    )
