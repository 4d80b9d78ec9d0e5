"""What a report shows, as plain data; knows nothing about HTML or how it came about."""

from dataclasses import dataclass, field

from finetune.statistics import Interval


@dataclass
class ItemCard:
    """An item as a shop window shows it."""

    title: str
    category: str = ""
    picture: bytes | None = None
    """PNG or JPEG; None where the item has none."""
    score: float | None = None


@dataclass
class Made:
    """What was generated for one item and one reader."""

    picture: bytes | None
    words: str


@dataclass
class Creation:
    """One item, dressed three ways: only the first knows the person."""

    item: ItemCard
    own: Made
    swapped: Made
    nobody: Made
    swapped_with: str = ""
    """Opaque id of the other person."""


@dataclass
class PersonStory:
    person: str
    """Opaque id."""
    history: list[ItemCard]
    """Oldest first; the latest few."""
    recommended: list[ItemCard]
    bought_next: ItemCard | None
    """What they truly took next (test), if known."""
    creations: list[Creation]
    note: str = ""
    """E.g. the demo world's truth about this person, shown as a caption."""


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
    """Memory at its peak, beyond what was held before."""
    is_control: bool = False
    """A baseline or control, against which the others are read."""
    seen_targets: int = 0
    """Targets that its encoder was pretrained on."""
    trials: int | None = None
    """Settings that were tried for it on validation; None where none of any arm's were."""
    failed: str = ""
    """Why it came to no figures; empty where it did."""


@dataclass
class ControlRow:
    """One measure of generated content: with one's own state, with another's, with none."""

    measure: str
    own: Interval
    swapped: Interval
    nobody: Interval | None
    contrast: Interval
    """The paired comparison of own with swapped."""
    contrast_name: str
    """`own − swapped` or `own / swapped`."""
    higher_is_better: bool
    people: int


@dataclass
class RetrievalRow:
    """What the encoder finds among what its training never read."""

    asks: str
    """text → image, history → next item, …"""
    recalls: dict[str, float]
    """R@1, R@5, R@10."""
    chance: float
    """R@10 of a blind guess."""
    popularity: float | None
    """R@10 of what is bought most."""
    queries: int
    candidates: int


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
    """A handful of the shop's items, as a first impression."""
    claims: list[Claim]
    curves: list[Curve]
    protocol: str
    """How the ranking table was measured."""
    arms: list[ArmRow]
    controls: list[ControlRow]
    people: list[PersonStory]
    retrieval: list[RetrievalRow] = field(default_factory=list)
    stages: list[tuple[str, float]] = field(default_factory=list)
    """(stage, seconds)."""
    notes: list[str] = field(default_factory=list)
    """What fell short, what to be careful about; shown, never hidden."""
