"""The content of a report as plain data; knows nothing about HTML or how it was measured."""

from dataclasses import dataclass, field

from finetune.statistics import Interval


@dataclass
class ItemCard:
    """An item as the report shows it."""

    title: str
    category: str = ""
    image: bytes | None = None
    """PNG or JPEG; None where the item has none."""
    score: float | None = None


@dataclass
class Generated:
    """Image and text generated for one item under one condition."""

    image: bytes | None
    text: str


@dataclass
class GeneratedItem:
    """What was generated for one item: conditioned on the user, on another user, unconditional."""

    item: ItemCard
    own: Generated
    swapped: Generated
    unconditional: Generated
    swapped_with: str = ""
    """Pseudonym of the other user."""


@dataclass
class UserStory:
    """A user's history, recommendations and generated items."""

    user: str
    """Pseudonym."""
    history: list[ItemCard]
    """Oldest first; the latest few."""
    recommended: list[ItemCard]
    bought_next: ItemCard | None
    """The test target, if known."""
    generated_items: list[GeneratedItem]
    note: str = ""
    """A caption, such as the demo world's ground truth about this user."""


@dataclass
class ArmRow:
    """One line of the ranking table."""

    name: str
    description: str
    """What it is, in a few words a newcomer understands."""
    ndcg: Interval
    metrics: dict[str, float]
    """Column name → value; the same columns in every row (nan where it makes no sense)."""
    trained_parameters: int = 0
    parameters: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0
    """Peak memory, beyond what the process held before."""
    is_control: bool = False
    """A baseline or control, against which the others are read."""
    seen_targets: int = 0
    """Number of test targets that its encoder was pretrained on."""
    trials: int | None = None
    """Number of search trials, scored on validation; None where no arm was searched."""
    failed: str = ""
    """Why it has no metrics; empty unless the arm failed."""


@dataclass
class ControlRow:
    """One measure of generated content: conditioned on the user, on another user, unconditional."""

    measure: str
    own: Interval
    swapped: Interval
    unconditional: Interval | None
    contrast: Interval
    """The paired comparison of own with swapped."""
    contrast_name: str
    """`own − swapped` or `own / swapped`."""
    higher_is_better: bool
    num_users: int


@dataclass
class RetrievalRow:
    """Retrieval recall of the encoder on data that its training never read."""

    query: str
    """text → image, history → next item, …"""
    recalls: dict[str, float]
    """R@1, R@5, R@10."""
    chance: float
    """R@10 of a random order."""
    popularity: float | None
    """R@10 of an order by popularity."""
    num_queries: int
    num_candidates: int


@dataclass
class Claim:
    """A sentence of the page with its figure, goal, and whether the figure meets it (computed)."""

    sentence: str
    figure: str
    goal: str
    met: bool


@dataclass
class Curve:
    title: str
    y_label: str
    series: dict[str, list[list[float]]]
    """Name → [[step, value], …]."""


@dataclass
class Report:
    title: str
    lead: str
    """Two or three sentences: what this run did, on what."""
    facts: list[tuple[str, str]]
    """(label, value) pairs about the catalogs and the run."""
    window: list[ItemCard]
    """A sample of the shop's items."""
    claims: list[Claim]
    curves: list[Curve]
    protocol: str
    """How the ranking table was measured."""
    arms: list[ArmRow]
    controls: list[ControlRow]
    user_stories: list[UserStory]
    retrieval: list[RetrievalRow] = field(default_factory=list)
    stages: list[tuple[str, float]] = field(default_factory=list)
    """(stage, seconds)."""
    elapsed: float | None = None
    """Seconds of the whole run, if known."""
    parallel_stages: int = 1
    """Stages that ran at the same time, at most."""
    notes: list[str] = field(default_factory=list)
    """Limitations of the run."""
    missing: list[str] = field(default_factory=list)
    """Stages that are not done; with any, the page is preliminary."""
    ranked_by: str = ""
    """On a preliminary page: what the users' lists were ranked by."""
