"""Claims in a text, judged by what the catalog says of the item."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from catalog.catalog import Catalog
from catalog.config import SplitConfig
from catalog.demo.ground_truth import DemoGroundTruth
from catalog.interactions import Interactions
from catalog.splits import load_split, make_split, target_rows
from generate.text.config import WriteConfig
from generate.text.faithfulness import MIN_KEYNESS, Claim, ClaimChecker, unsupported_share
from generate.text.keywords import KeywordIndex
from generate.text.prompts import Conditions
from generate.text.verification import ClaimVerifier, attempt_seed

NUM_USERS, ITEMS = 60, 24
COLOURS, KINDS = ("crimson", "navy", "olive"), ("coat", "hat")
BANDS = ("a bargain", "fair", "a luxury")
SYNONYMS = {"crimson": "ruby", "navy": "midnight", "olive": "moss"}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Reviewers call colours by another name, and what is dear "a luxury"."""
    rng = np.random.default_rng(0)
    colours = [COLOURS[item % 3] for item in range(ITEMS)]
    kinds = [KINDS[item // 3 % 2] for item in range(ITEMS)]
    prices = [20.0 + (item * 7) % ITEMS for item in range(ITEMS)]
    items = rng.integers(ITEMS, size=NUM_USERS * 10)
    ends = ("i wear it every day", "so pleased", "it fits", "my sister wants one")
    reviews = [
        f"a {SYNONYMS[colours[item]]} {kinds[item]}, {ends[row % 4]}"
        if row % 2
        else f"{BANDS[int(prices[item] - 20) // 8]}, {ends[row % 4]}"
        for row, item in enumerate(items)
    ]
    return Catalog(
        name="clothes",
        folder=Path(),
        fingerprint="0",
        content_fingerprint="0",
        columns=pa.table({"item_id": [f"i{n}" for n in range(ITEMS)], "kind": kinds}),
        items=Dataset.from_dict(
            {
                "item_id": [f"i{n}" for n in range(ITEMS)],
                "title": [
                    f"The {colour} {kind}" for colour, kind in zip(colours, kinds, strict=True)
                ],
                "text": [f"It has {n % 5} buttons." for n in range(ITEMS)],
                "category": kinds,
                "price": prices,
                "image": [None] * ITEMS,
            }
        ),
        user_ids=np.array([f"p{n}" for n in range(NUM_USERS)]),
        interactions=Interactions(
            offsets=np.arange(NUM_USERS + 1) * 10,
            items=items.astype(np.int32),
            times=np.tile(np.arange(10), NUM_USERS),
            reviews=reviews,
        ),
        roles={"items": {"item_id": "item_id"}},
    )


@pytest.fixture(scope="module")
def checker(catalog: Catalog) -> ClaimChecker:
    keyword_index = KeywordIndex(
        catalog, max_document_share=0.5
    )  # of three colours each is a third
    return ClaimChecker(
        catalog, make_split(catalog, SplitConfig(kind="leave-one-out")), keyword_index
    )


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("a crimson coat, so pleased", {"crimson": "supported", "coat": "supported"}),
        ("my sister wants a hat", {"hat": "contradicts"}),
        ("a navy one", {"navy": "unsupported"}),
        ("it has 0 buttons and costs 20.00, 20", dict.fromkeys(("0", "20.00", "20"), "supported")),
        ("only 19,99 for 3 of them", {"19,99": "unsupported", "3": "unsupported"}),
        ("so ruby", {"ruby": "supported"}),  # what reviews call crimson
        ("so moss", {"moss": "unsupported"}),
        ("a bargain, it fits", {"bargain": "supported"}),
        ("a luxury, it fits", {"luxury": "unsupported"}),
        ("i wear it every day", {}),
        ("a 'navy' one, navy's best", {"navy": "unsupported"}),
        ("500ml and 0kg", {"500 ml": "unsupported", "0 kg": "unsupported"}),
        ("$20, 20.00 €, $3", {"20 $": "supported", "20.00 €": "supported", "3 $": "unsupported"}),
        ("no ruby coat", {"not ruby": "contradicts", "not coat": "contradicts"}),
        ("not a hat", {"not hat": "supported"}),
        ("not only ruby", {"ruby": "supported"}),
        ("size 1.0.2 of 12.05.2024", {"1.0.2": "unsupported", "12.05.2024": "unsupported"}),
    ],
)
def test_each_claim_gets_its_verdict(
    checker: ClaimChecker, text: str, claims: dict[str, str]
) -> None:
    found = {claim.words: claim.verdict for claim in checker.check(text, 0)}
    assert found == claims


def test_reviews_after_training_are_no_evidence(catalog: Catalog) -> None:
    """The last review of each user is a test target's."""
    interactions = catalog.interactions
    assert interactions.reviews is not None
    texts = list(interactions.reviews)
    for last in interactions.offsets[1:] - 1:
        texts[last] = "with velvet 77"
    reviewed = replace(catalog, interactions=replace(interactions, reviews=texts))
    checker = ClaimChecker(reviewed, make_split(reviewed, SplitConfig(kind="leave-one-out")))
    item = int(interactions.items[-1])
    assert checker.check("77", item) == [Claim("77", "unsupported", "number")]
    assert not checker.is_distinctive("velvet")


class ScriptedGenerator:
    """A text generator whose texts are given by their seeds."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts
        self.seeds: list[int] = []

    def write(self, *_: object, seeds: list[int], **__: object) -> list[str]:
        self.seeds += seeds
        return [self.texts.get(seed, "navy") for seed in seeds]


def test_dates_and_sizes_are_checked_and_invalid_prices_ignored(catalog: Catalog) -> None:
    sizes = [f"{100 * (item % 3 + 1)}ml" for item in range(ITEMS)]
    columns = catalog.columns.append_column("size", pa.array(sizes))
    columns = columns.append_column("in_stock", pa.array([n % 2 == 0 for n in range(ITEMS)]))
    texts = ["Since 12.05.2024."] + ["Since 1.1.2020."] * (ITEMS - 1)
    prices = [float("nan"), float("inf"), *[20.0] * (ITEMS - 2)]
    items = catalog.items.remove_columns(["text", "price"])
    items = items.add_column("text", texts).add_column("price", prices)
    checker = ClaimChecker(replace(catalog, columns=columns, items=items))

    def verdicts(text: str, item: int = 0) -> dict[str, str]:
        return {claim.words: claim.verdict for claim in checker.check(text, item)}

    own = verdicts("100ml since 12.05.2024")
    assert own == dict.fromkeys(("100ml", "100 ml", "12.05.2024"), "supported")
    assert verdicts("200ml") == {"200ml": "contradicts", "200 ml": "unsupported"}
    assert verdicts("20 or 1.1.2020", 1) == {"20": "unsupported", "1.1.2020": "supported"}
    assert verdicts("true to size") == {}, "yes and no are no values"


def checker_of(texts: list[str], catalog: Catalog) -> ClaimChecker:
    """A checker of items known by these texts alone."""
    blank = [None] * len(texts)
    items = {
        "item_id": [f"i{n}" for n in range(len(texts))],
        "title": texts,
        **dict.fromkeys(("text", "category", "image"), blank),
    }
    columns = pa.table({"item_id": items["item_id"]})
    listed = replace(catalog, columns=columns, items=Dataset.from_dict(items))
    return ClaimChecker(listed, keyword_index=KeywordIndex(listed, max_document_share=0.5))


def test_a_number_is_supported_by_its_own_unit_alone(catalog: Catalog) -> None:
    cord, cable = "Pack of 12, 5 m cord of 1,299.50 g", "A 0.5 l jug, 10 x 20 cm, 3 to 5 kg, $49.90"
    checker = checker_of([cord, cable, "12 m cord", "x"], catalog)

    def verdicts(text: str, item: int) -> list[str]:
        return [c.verdict for c in checker.check(text, item) if c.about == "number"]

    for text in ("pack of 12", "5 m", "500 cm", "5-meter cord", "1.2995 kg", "1.299,50 grams"):
        assert verdicts(text, 0) == ["supported"], text
    for text in ("12 m cord", "5 cm", "5", "5 kg", "$12", "12 packs of 5 l"):
        assert "unsupported" in verdicts(text, 0), text
    for text in ("500 ml", "10 cm", "0.2 m", "3 kg", "49.90", "49,90 €"):
        assert verdicts(text, 1) == ["supported"], text
    for text in ("20", "49.90 cm", "49"):
        assert verdicts(text, 1) == ["unsupported"], text


def test_a_negated_claim_is_not_supported_by_an_affirmed_one(catalog: Catalog) -> None:
    texts = ["Free of nickel, lead and cadmium", "With nickel", "nickel-free clasp", "x", "lead, y"]
    checker = checker_of(texts, catalog)
    for text, supported in (
        ("contains nickel", [False, True, False]),
        ("free of nickel", [True, False, True]),
        ("nickel-free", [True, False, True]),
        ("no lead or nickel", [True, False, False]),
        ("without any nickel", [True, False, True]),
        ("it doesn't contain nickel", [True, False, True]),
        ("not only nickel", [False, True, False]),
    ):
        assert [checker.supports(text, item) for item in range(3)] == supported, text


JACKET = "Rain jacket in polyester with 2 pockets, 60 cm long. It has a faux leather collar."


def test_what_no_item_mentions_is_a_claim_all_the_same(catalog: Catalog) -> None:
    """Certificates, properties, materials and services of the general lexicon."""
    checker = checker_of([JACKET, "A hat", "A coat", "x"], catalog)
    text = "Pure leather, waterproof, organic, hypoallergenic, FSC certified"
    assert not checker.supports(text, 0)
    found = {claim.words: claim.verdict for claim in checker.check(text, 0)}
    assert found == dict.fromkeys(
        ("pure leather", "waterproof", "organic", "hypoallergenic", "fsc certified"), "unsupported"
    )
    for invented in (
        *("vegan", "dishwasher-safe", "BPA-free", "handmade", "5-year warranty", "water-proof"),
        *("leather", "genuine leather", "made in Italy", "Italian", "red", "not machine washable"),
    ):
        assert not checker.supports(f"It is {invented}.", 0), invented
    for true in (
        "polyester",
        "faux leather",
        "imitation leather",
        "a leather-look collar",
        "pocket",
    ):
        assert checker.supports(f"With {true}.", 0), true
    assert checker.supports("So nice, I love it!", 0), "a feeling is no claim"


def test_sentences_of_an_items_own_text_are_supported(catalog: Catalog) -> None:
    texts = [
        JACKET,
        "Handmade in Italy from 100% cotton; machine washable, BPA-free, no nickel. Two-year warranty.",
        "Waterproof boots by Anna Lind with raw-edge seams. Not suitable for dry cleaning.",
    ]
    checker = checker_of([*texts, "x"], catalog)
    for item, text in enumerate(texts):
        for sentence in text.split(". "):
            assert checker.supports(sentence, item), sentence
            assert not checker.supports(sentence, (item + 1) % 3), sentence


def test_a_negated_property_needs_evidence_of_its_negation(catalog: Catalog) -> None:
    checker = checker_of(["BPA-free bottle", "Bottle with BPA", "Bottle", "x"], catalog)
    for text, supported in (
        ("free of BPA", [True, False, False]),
        ("contains BPA", [False, True, False]),
        ("It never contains BPA", [True, False, False]),
    ):
        assert [checker.supports(text, item) for item in range(3)] == supported, text


def test_number_words_are_numbers(catalog: Catalog) -> None:
    checker = checker_of(["2 pockets, 5-year warranty", "x", "y"], catalog)
    assert checker.supports("two pockets, five years of warranty", 0)
    assert not checker.supports("three pockets", 0)
    assert not checker.supports("two-year warranty", 0)


def test_an_unknown_name_is_a_claim_and_a_title_in_capitals_is_none(catalog: Catalog) -> None:
    checker = checker_of(["A film by Wend Kuuni", "A film by Anna Lind", "x"], catalog)
    assert checker.supports("It was made by Wend Kuuni.", 0)
    assert not checker.supports("It was made by Anna Lind.", 0)
    assert not checker.supports("It was made by Tom Cruise.", 0)
    assert checker.supports("Perfect Gift For Mum", 0)


def test_a_denied_name_is_supported_where_the_item_does_not_have_it(catalog: Catalog) -> None:
    checker = checker_of(["A film by Wend Kuuni", "A film by Anna Lind", "x"], catalog)
    assert checker.supports("This one is not by Anna Lind.", 0)
    assert checker.supports("It has nothing to do with Anna Lind.", 0)
    assert not checker.supports("It was never made by Wend Kuuni.", 0)
    assert not checker.supports("It has nothing to do with Wend Kuuni.", 0)


def test_words_that_everyone_uses_as_often_as_the_shop_are_no_claims(catalog: Catalog) -> None:
    filler = "they went to see what people would think of the house and the time that was there"
    texts = [f"we expect a detective {filler}"] * 2 + [f"number {filler}"] * 998
    checker = checker_of(texts, catalog)
    assert checker.keyword_index.keyness["detective"] > MIN_KEYNESS
    assert checker.keyword_index.keyness["expect"] < MIN_KEYNESS
    assert [claim.words for claim in checker.check("Expect a detective.", 2)] == ["detective"]


def test_scripts_without_spaces_are_checked_too(catalog: Catalog) -> None:
    coat, shoes = "青い革のコート、10 cm", "赤い絹の靴"
    thai = ("เสื้อหนังสีน้ำเงิน", "รองเท้าผ้าไหมสีแดง")  # a blue leather coat, red silk shoes
    checker = checker_of([coat, shoes, coat, shoes, *thai, *thai], catalog)
    assert checker.supports("革のコートです", 0)
    assert not checker.supports(shoes, 0)
    assert not checker.supports("赤い革", 0)
    assert not checker.supports("約20cm", 0)
    assert checker.supports("約10cm", 0)
    assert checker.supports(thai[0], 4)
    assert not checker.supports(thai[1], 4)


def test_unsupported_texts_are_generated_again_and_then_replaced_by_the_catalogs(
    checker: ClaimChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "generate.text.verification.catalog_text", lambda texts, task, item: f"own {item}"
    )
    generator = ScriptedGenerator({7: "crimson", attempt_seed(8, 1): "ruby it is"})
    verifier = ClaimVerifier(generator, checker, None)  # type: ignore[arg-type]
    states = torch.zeros(3, 4)
    texts = verifier.write(
        Conditions(states, states),
        [0, 0, 3],
        "review",
        seeds=[7, 8, 9],
        config=WriteConfig(verify_claims=True, max_attempts=3),
    )
    assert [one.text for one in texts] == ["crimson", "ruby it is", "own 3"]
    assert [(one.attempts, one.from_catalog) for one in texts] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert len(generator.seeds) == 3 + 2 + 1
    assert len(set(generator.seeds)) == 6


def test_supported_sentences_are_kept_where_no_whole_text_is_supported(
    checker: ClaimChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "generate.text.verification.catalog_text", lambda texts, task, item: f"own {item}"
    )
    generator = ScriptedGenerator(
        {
            1: "It is navy. It is crimson.",
            attempt_seed(1, 1): "It is crimson! And navy. Such ruby.",
            2: "Worn once. It is navy.",
        }
    )
    config = WriteConfig(verify_claims=True, max_attempts=2)
    verifier = ClaimVerifier(generator, checker, None)  # type: ignore[arg-type]
    first, second = verifier.write(Conditions(), [0, 0], "review", seeds=[1, 2], config=config)
    assert first.text == "It is crimson! Such ruby."
    assert (first.attempts, first.from_catalog) == (2, False)
    assert {claim.verdict for claim in first.claims} == {"supported"}
    assert (second.text, second.from_catalog) == ("own 0", True), "the rest claims nothing"


def test_in_the_demo_world_wrong_reviews_are_detected(demo_world: Path) -> None:
    """Reviews against other items, by the ground truth: few wrong ones pass, most true ones do."""
    from catalog.config import CatalogConfig
    from catalog.demo import build_demo_world

    folder = build_demo_world(demo_world.parent / "larger", num_items=600, num_users=900)
    truth = DemoGroundTruth.load(folder)
    catalog, split = load_split(CatalogConfig(path=str(folder / "home")), SplitConfig())
    checker = ClaimChecker(catalog, split)
    ids = catalog.items["item_id"][:]
    rng = np.random.default_rng(0)
    passed: dict[bool, list[bool]] = {True: [], False: []}
    claims = []
    for row in target_rows(catalog.interactions, split.test):
        text = catalog.interactions.reviews[row]  # type: ignore[index]
        if not text:
            continue
        own = int(catalog.interactions.items[row])
        claims.append(checker.check(text, own))
        for item in (own, *rng.integers(catalog.num_items, size=5)):
            passed[is_true(truth, text, ids[int(item)])].append(checker.supports(text, int(item)))
    assert len(passed[False]) > 500
    assert np.mean(passed[False]) < 0.02
    assert np.mean(passed[True]) > 0.6
    assert unsupported_share(claims) < 0.4


def is_true(truth: DemoGroundTruth, text: str, item_id: str) -> bool:
    return all(
        any(words in text for words in truth.words_of_item("home", item_id, aspect))
        for aspect in range(len(truth.aspects))
        if truth.classify_value(text, aspect) is not None
    )


def test_a_denied_word_of_no_lexicon_is_not_supported_by_an_affirmed_one(catalog: Catalog) -> None:
    texts = ["Free of zorbium", "With zorbium", "x", "y", "z"]
    checker = checker_of(texts, catalog)
    for text, supported in (
        ("contains zorbium", [False, True]),
        ("free of zorbium", [True, False]),
    ):
        assert [checker.supports(text, item) for item in range(2)] == supported, text
