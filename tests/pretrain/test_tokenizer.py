"""A tokenizer learned from a catalog is the same in every process, or ranks would not agree."""

from pretrain.tokenizer import train_tokenizer

WORDS = ["striped linen lamp", "dotted oak vase", "a calm, cobalt rug", "velvet & brass chair"]


def test_the_same_texts_give_the_same_tokenizer() -> None:
    # Rust's hash maps draw a new seed for each map, so one process is enough to see a difference.
    vocabularies = [train_tokenizer(WORDS * 3, 120).get_vocab() for _ in range(5)]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


def test_padding_is_id_zero_and_words_come_back() -> None:
    tokenizer = train_tokenizer(WORDS, 200)
    assert tokenizer.pad_token_id == 0
    ids = tokenizer("Dotted oak vase")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "dotted oak vase"
