"""Renders a report as one self-contained HTML page: the catalog first, then measurements."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from launch.report.charts import chart_figure, line_chart, share_bar
from launch.report.contents import Claim, Curve, Report
from launch.report.gallery import user_story, window
from launch.report.markup import Child, Html, duration, percent, tag
from launch.report.tables import controls_table, ranking_table, retrieval_table

# Nothing on the page may run or be fetched, whatever an item's title says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

FLOW = [
    (
        "catalog",
        "The items of the shop – text and images – and each user’s interactions, in order of time.",
        '<rect x="6" y="6" width="15" height="15" rx="2"/><rect x="27" y="6" width="15" height="15"'
        ' rx="2"/><rect x="6" y="27" width="15" height="15" rx="2"/><circle cx="34.5" cy="34.5"'
        ' r="7.5" class="fill"/>',
    ),
    (
        "pretrain",
        "A model encodes each item’s content as an embedding; similar items have similar embeddings.",
        '<path d="M8 40V6M8 40H42"/><circle cx="17" cy="16" r="3" class="fill"/><circle cx="23"'
        ' cy="12" r="3" class="fill"/><circle cx="22" cy="20" r="3" class="fill"/><circle cx="33"'
        ' cy="30" r="3"/><circle cx="38" cy="25" r="3"/><circle cx="30" cy="23" r="3"/>',
    ),
    (
        "finetune",
        "A recommender learns from each user’s history which item they are likely to buy next.",
        '<path d="M4 32L14 20L24 27L33 15"/><circle cx="4" cy="32" r="2.5" class="fill"/><circle'
        ' cx="14" cy="20" r="2.5" class="fill"/><circle cx="24" cy="27" r="2.5" class="fill"/>'
        '<circle cx="37" cy="11" r="6" stroke-dasharray="3 2.4"/>',
    ),
    (
        "generate",
        "Two generators make an image and a text of one item, conditioned on one user.",
        '<rect x="6" y="6" width="36" height="26" rx="2"/><path d="M10 28l9-11 7 8 5-5 7 8"/>'
        '<path d="M6 38H42M6 43H28"/><path d="M33 10v6M30 13h6"/>',
    ),
]


def render_page(report: Report) -> str:
    """One HTML page, readable from top to bottom by someone who never saw the project."""
    sections = [
        ("window", "The catalog", _window(report)),
        (
            "users",
            "Recommended to a user" if report.ranked_by else "Generated for a user",
            _ranked_users(report) if report.ranked_by else _user_stories(report),
        ),
        ("claims", "Claims", _claims(report.claims)),
        ("retrieval", "Retrieval with the encoder", _retrieval(report)),
        ("ranking", "Ranking quality", _ranking(report)),
        ("controls", "Does the user condition matter?", _controls(report)),
        ("curves", "Loss curves", _curves(report.curves)),
        ("time", "Time by stage", _stages(report)),
        ("notes", "Limitations", _notes(report.notes)),
    ]
    return document(report.title, _hero(report), sections, tag("p", _footer()))


def document(
    title: str, hero: Child, sections: Sequence[tuple[str, str, Child]], footer: Child
) -> str:
    """A whole page; `sections`: (anchor, heading, body), left out where the body is empty."""
    shown = [(anchor, heading, body) for anchor, heading, body in sections if body]
    links = [tag("li", tag("a", heading, href=f"#{anchor}")) for anchor, heading, _ in shown]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", _style()),
    )
    body = tag(
        "body",
        tag("header", hero, tag("nav", tag("ol", links), aria_label="On this page")),
        tag("main", [_section(*section) for section in shown]),
        tag("footer", footer),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


@cache
def _style() -> Html:
    return Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))


def _section(anchor: str, title: str, body: Child) -> Html:
    heading = tag("h2", title, id=f"{anchor}-title")
    return tag("section", heading, body, id=anchor, aria_labelledby=f"{anchor}-title")


def _lead(*text: Child) -> Html:
    return tag("p", text, class_="lead")


def _hero(report: Report) -> list[Html]:
    steps = []
    for name, sentence, drawing in FLOW:
        icon = tag("svg", Html(drawing), viewBox="0 0 48 48", class_="icon", aria_hidden="true")
        steps.append(tag("li", icon, tag("strong", name), tag("span", sentence)))
    return [
        tag("p", "Vitrine", class_="brand"),
        tag("h1", report.title, dir="auto"),
        tag("p", report.lead, class_="lead", dir="auto"),
        *([_preliminary(report.missing)] if report.missing else []),
        tag("ol", steps, class_="flow", aria_label="The four stages, in order"),
    ]


def _preliminary(missing: Sequence[str]) -> Html:
    """The mark of a page that was written while the run went on, with what is still missing."""
    return tag(
        "p",
        tag("strong", "Preliminary. "),
        "The run goes on; this page is written again as stages finish, so reload it. Still missing: ",
        tag("span", ", ".join(missing), class_="still-missing", dir="auto"),
        ".",
        class_="preliminary",
        role="status",
    )


def _window(report: Report) -> list[Html]:
    parts = []
    if report.window:
        text = "A sample of the catalog’s items."
        parts += [_lead(text), window(report.window)]
    if report.facts:
        pairs = [
            tag("div", tag("dt", label), tag("dd", value, dir="auto"))
            for label, value in report.facts
        ]
        parts.append(tag("dl", pairs, class_="facts"))
    return parts


def _ranked_users(report: Report) -> list[Html]:
    """Users with their lists alone, on a preliminary page."""
    if not report.user_stories:
        return []
    intro = _lead(
        f"What users bought, and what is recommended to them by {report.ranked_by}. Texts and images "
        "for them follow."
    )
    return [intro, *(user_story(story) for story in report.user_stories)]


def _user_stories(report: Report) -> list[Html]:
    if not report.user_stories:
        return []
    look = [
        tag(
            "li",
            "First see what the user bought, and what it has in common: colours, shapes, patterns.",
        ),
        tag("li", "The recommendations should continue that history."),
        tag(
            "li",
            "Then compare four versions of one item. ",
            tag("strong", "Made for this user"),
            " should lean towards their history; made for another user, towards another’s; ",
            "the unconditional one shows what the model generates without a user.",
        ),
    ]
    intro = _lead(
        "Each section shows one user of the shop under a pseudonym. How to read it:",
    )
    caution = tag(
        "p",
        "A few users show what to look for; whether it holds for all users is measured further down.",
        class_="quiet",
    )
    stories = [user_story(story) for story in report.user_stories]
    return [intro, tag("ol", look, class_="look"), caution, *stories]


def _claims(claims: Sequence[Claim]) -> list[Html]:
    if not claims:
        return []
    num_met = sum(claim.met for claim in claims)
    text = f"{num_met} of {len(claims)} are met. The marks are computed from figure and goal."
    return [_lead(text), tag("ul", [_claim(claim) for claim in claims], class_="claims")]


def _claim(claim: Claim) -> Html:
    sign, word, look = ("✓", "met", "met") if claim.met else ("✗", "not met", "unmet")
    mark = tag("p", tag("span", sign, class_="sign", aria_hidden="true"), word, class_="mark")
    return tag(
        "li",
        mark,
        tag("p", claim.sentence, class_="sentence"),
        tag("p", claim.figure, class_="figure"),
        tag("p", tag("span", "goal "), claim.goal, class_="goal"),
        class_=f"claim {look}",
    )


def _retrieval(report: Report) -> list[Html]:
    if not report.retrieval:
        return []
    intro = _lead(
        "Measured with the pretrained encoder, in the shop it was trained on. Between modalities: one ",
        "modality of an item is the query for another, over items that no training step read. From ",
        "histories: the query is a history, the answer what the user bought after the end of ",
        "training. R@10 is the share of queries whose answer is among the first ten.",
    )
    return [intro, retrieval_table(report.retrieval)]


def _ranking(report: Report) -> list[Html]:
    if not report.arms:
        return []
    intro = _lead(
        "An item that each user bought was hidden, and the shop’s items were ranked for ",
        "them. NDCG@10 is 1 where the hidden item always comes first and 0 where it never is ",
        "among the first ten. The line through each dot is its 95 % interval over users; where ",
        "two lines do not overlap, the difference is unlikely to come from the choice of users. ",
        "Differences between trainings are not in it: vitrine compare --seeds measures those.",
    )
    protocol = tag("p", report.protocol, class_="protocol") if report.protocol else None
    return [intro, ranking_table(report.arms), *([protocol] if protocol else [])]


def _controls(report: Report) -> list[Html]:
    if not report.controls:
        return []
    intro = _lead(
        "Images and texts of the same items were generated three times: conditioned on their own ",
        "user, on another user, and unconditional. Only if the first beats the second does the model ",
        "use the user condition. Small figures are 95 % intervals over users.",
    )
    return [intro, controls_table(report.controls)]


def _curves(curves: Sequence[Curve]) -> list[Html]:
    if not curves:
        return []
    charts = [chart_figure(one.title, one.y_label, line_chart(one)) for one in curves]
    return [tag("div", charts, class_="charts")]


def _stages(report: Report) -> list[Html]:
    stages = report.stages
    if not stages:
        return []
    total = sum(seconds for _, seconds in stages) or 1.0
    rows = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", share_bar(seconds / total), class_="bar"),
            tag("td", duration(seconds), class_="number"),
            tag("td", percent(seconds / total), class_="number"),
        )
        for name, seconds in stages
    ]
    names = [("stage", "spoken"), ("share of the whole", "spoken")]
    heads = [tag("th", tag("span", name, class_=look), scope="col") for name, look in names]
    heads += [tag("th", name, scope="col", class_="number") for name in ("time", "share")]
    table = tag("table", tag("thead", tag("tr", heads)), tag("tbody", rows), class_="stages")
    text = f"{duration(total)} in all."
    if report.elapsed is not None:
        text = f"The run took {duration(report.elapsed)}; its stages took {duration(total)}"
        text += f", {report.parallel_stages} at a time." if report.parallel_stages > 1 else "."
    return [_lead(text), table]


def _notes(notes: Sequence[str]) -> list[Html]:
    if not notes:
        return []
    return [tag("ul", [tag("li", note, dir="auto") for note in notes], class_="notes")]


def _footer() -> str:
    return (
        "Images and texts marked “generated” were made by a model and show no real product. "
        "Users appear under pseudonyms only."
    )
