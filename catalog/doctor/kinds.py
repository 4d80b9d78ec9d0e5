"""Every kind of fault that the doctor knows: how bad it is, the rule that finds it, and its remedy."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "hint"]
"""error: the data is certainly wrong; warning: very probably; hint: a guess, or a fact worth knowing."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")
"""The worst first."""
Unit = Literal["items", "users", "interactions", "catalog"]
"""What a finding's rows number; catalog: it concerns the whole, and has no rows."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    severity: Severity
    rule: str
    remedy: str


KINDS: dict[str, Kind] = {
    # Items and their texts.
    "unknown-items": Kind(
        "warning",
        "interactions name an item that the items table lacks",
        "add the items, or set unknown_items: drop",
    ),
    "suspect-rows": Kind(
        "warning",
        "a column whose name contains suspect marks the item",
        "look at them; remove their texts and images where they are wrong",
    ),
    "duplicate-titles": Kind(
        "warning",
        "several items have the same title",
        "copies of one item split its history: give them one id, or distinct texts",
    ),
    "duplicate-texts": Kind(
        "warning",
        "several items have the same text; a text that is the category alone is left out",
        "copies of one item split its history: give them one id, or distinct texts",
    ),
    "near-duplicate-texts": Kind(
        "warning",
        "two texts of at least 8 words that are not equal share 65 % of their words and word pairs "
        "(Jaccard); candidates by MinHash",
        "give variants of one item one id, or say in the text what distinguishes them",
    ),
    "empty-texts": Kind(
        "warning",
        "an item has no title and no text, in a catalog where at least half of the items have one",
        "add a title; until then these items are known by their image or their id alone",
    ),
    "short-texts": Kind(
        "warning", "title and text together have fewer than 4 letters and digits", "write a title"
    ),
    "long-texts": Kind(
        "hint",
        "title and text together have more than 10,000 characters",
        "put what matters first: encoders read the first max_tokens tokens",
    ),
    "html-in-texts": Kind(
        "warning",
        "tags, entities or style rules are left after HTML was removed and entities resolved once",
        "export plain text; text that was escaped twice has to be unescaped once more",
    ),
    "mojibake": Kind(
        "warning",
        "UTF-8 bytes that were read as cp1252 or Latin-1 (Ã©, â€™), or the replacement character",
        "set encoding: utf-8, or mend the export: encode as cp1252 and decode as UTF-8",
    ),
    "placeholder-texts": Kind(
        "warning",
        "a title or a text is only n/a, null, TODO, untitled and the like, or holds lorem ipsum",
        "leave the field empty: a missing text is masked, a placeholder is learned",
    ),
    "boilerplate-texts": Kind(
        "warning",
        "a sentence of at least five words is in 5 % of the texts, and in ten at least",
        "remove the sentence from the texts; it says nothing about an item",
    ),
    "unknown-tokens": Kind(
        "warning",
        "more than a tenth of the tokens of a text are unknown to the tokenizer that was given",
        "choose a tokenizer that knows the texts' script, or one of bytes",
    ),
    "mixed-scripts": Kind(
        "hint",
        "most letters of the text are of a script that less than a fifth of the texts are in",
        "choose an encoder that knows all scripts",
    ),
    "mixed-languages": Kind(
        "hint",
        "the frequent words and letters of the text are of another language than those of most texts",
        "choose an encoder of several languages, or keep some with `vitrine catalog import --languages`",
    ),
    "ids-in-texts": Kind(
        "warning",
        "the text contains the id of another item: of six characters or more with a digit, or of four "
        "after the word item, product, article, sku or id",
        "remove the ids: a text generator copies them, and an encoder learns them",
    ),
    "id-order": Kind(
        "hint",
        "numbers in the item ids rise or fall with popularity or first interaction (Spearman's rank "
        "correlation of at least .3, and five standard errors)",
        "never use ids as a feature, and break ties in rankings at random",
    ),
    # Personal data.
    "e-mail-addresses": Kind(
        "warning", "a text or review contains an e-mail address", "remove personal data"
    ),
    "phone-numbers": Kind(
        "warning",
        "a text or review contains a phone number with + and a country code, or of the form "
        "(555) 555-5555 or 555-555-5555",
        "remove personal data",
    ),
    "payment-numbers": Kind(
        "warning",
        "a text or review contains an IBAN or a card number whose check digits are right",
        "remove personal data",
    ),
    "ip-addresses": Kind(
        "warning", "a text or review contains an IPv4 address", "remove personal data"
    ),
    # Pictures.
    "broken-images": Kind(
        "warning",
        "an image file is missing or cannot be decoded",
        "replace them; until then these items count as without one",
    ),
    "duplicate-images": Kind(
        "warning",
        "several items have the same image file, byte by byte",
        "see whether it is a placeholder such as 'no image'; if so remove it",
    ),
    "placeholder-images": Kind(
        "warning",
        "one image is that of at least 5 items and of 1 % of those with an image",
        "remove it: a missing image is masked, a placeholder is learned",
    ),
    # A hint: among many products of one outline on white, some pairs look alike and are no copies.
    "near-duplicate-images": Kind(
        "hint",
        "two image files differ but look the same: perceptual hashes (dHash, 128 bits) within 20 bits, "
        "and once aligned they agree in thumbnail and details",
        "look at the pairs; copies of one item split its history: give them one id",
    ),
    "flat-images": Kind(
        "warning", "an image is one flat colour", "remove it: it shows nothing of the item"
    ),
    "tiny-images": Kind(
        "warning",
        "the shorter side of an image is below 64 pixels",
        "export larger images; an encoder enlarges small ones and sees their blur",
    ),
    "extreme-aspect": Kind(
        "warning",
        "an image is more than four times as wide as high, or as high as wide",
        "crop it to the item; letterboxing leaves few pixels of it",
    ),
    "image-text-mismatch": Kind(
        "hint",
        "by the encoder that was given, half of the other images fit the text better than the item's own, "
        "and half of the other texts the image",
        "look at them; remove the image or the text that is wrong",
    ),
    # Prices and categories.
    "nonpositive-prices": Kind(
        "warning", "a price is zero or negative", "leave unknown prices empty"
    ),
    "price-outliers": Kind(
        "warning",
        "a price is more than 5 robust deviations (of logarithms) from its category's median",
        "look for a wrong decimal mark, currency or unit",
    ),
    "single-item-categories": Kind(
        "hint", "the category has one item", "merge categories, or mend their spelling"
    ),
    "unbalanced-categories": Kind(
        "hint",
        "one of several categories holds more than 80 % of the items",
        "use a finer column as category",
    ),
    # Interactions.
    "duplicate-interactions": Kind(
        "warning",
        "an interaction repeats another: same user, item and time",
        "remove the copies, or let them stand as quantities",
    ),
    "future-interactions": Kind(
        "error",
        "an interaction is more than a day after now",
        "mend the time column; a temporal split would put them into test",
    ),
    "ancient-interactions": Kind(
        "warning",
        "an interaction is before 1990 while most are later",
        "mend the time column: 1970-01-01 is what a missing time becomes",
    ),
    "equal-times": Kind(
        "warning",
        "all interactions of a user have one time, for at least 5 % of the users with three or more",
        "export times in seconds: without them the order within a history is the file's",
    ),
    "burst-users": Kind(
        "warning",
        "a user's most interactions in one minute or day are 20 or 50 at least, and five times those of "
        "95 % of the users",
        "see whether they are bots or imports; leave them out",
    ),
    "regular-users": Kind(
        "warning",
        "ten or more interactions of a user follow each other at exactly equal intervals",
        "see whether they are bots; leave them out",
    ),
    "single-interaction-users": Kind(
        "hint",
        "more than half of the users have one interaction",
        "they give no training pair: import with min_user_interactions, or expect cold starts",
    ),
    "never-interacted": Kind(
        "hint",
        "more than a fifth of the items have no interaction",
        "they are ranked by content alone; see whether interactions are missing",
    ),
    # Splits.
    "no-test-targets": Kind(
        "error", "the split has no test target", "add users with longer histories"
    ),
    "few-test-targets": Kind(
        "warning",
        "the split has fewer than 100 test targets",
        "figures of so few targets have wide intervals: add users or choose another split",
    ),
    "repeated-targets": Kind(
        "hint",
        "more than a tenth of the test targets are in their user's history",
        "choose split.repeats: rank where buying again counts, else drop",
    ),
    "given-split": Kind(
        "error",
        "the split column cannot be used",
        "until then, split.kind: given is refused",
    ),
    "split-overlap": Kind(
        "error",
        "an interaction of the test part is in the training part of the given split too: same user, item "
        "and time",
        "remove it from one of them; figures of such a split are too good",
    ),
}
"""Slug → kind."""
