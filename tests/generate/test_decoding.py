"""Requests that share a batch: each is written as if it were alone, and none waits for another."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from generate.text.decoding import Decoder, DecodingRequest
from generate.text.sampling import sample_tokens

WIDTH, VOCABULARY, END = 32, 200, 5
MODELS = {
    "llama": {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    },
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 128},
}


def make_model(kind: str = "llama") -> nn.Module:
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0}
    config = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, initializer_range=0.3, **special, **MODELS[kind]
    )
    return AutoModelForCausalLM.from_config(config).eval()


def some_requests(number: int) -> list[DecodingRequest]:
    """Of all lengths and temperatures."""
    draws = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 20, (number, 2), generator=draws).tolist()
    return [
        DecodingRequest(
            torch.randn(length, WIDTH, generator=draws),
            seed=place,
            temperature=(0.0, 0.7, 1.5)[place % 3],
            top_p=(0.9, 1.0)[place % 2],
            max_tokens=2 * most,
        )
        for place, (length, most) in enumerate(sizes)
    ]


@pytest.mark.parametrize("kind", MODELS)
def test_each_of_many_mixed_requests_is_decoded_as_if_alone(kind: str) -> None:
    model, requests = make_model(kind), some_requests(64)
    alone = [
        Decoder(model, ends=[END], max_batch_size=1).generate([request])[0] for request in requests
    ]
    assert Decoder(model, ends=[END], max_batch_size=8).generate(requests) == alone
    assert Decoder(model, ends=[END], max_batch_size=64).generate(requests[::-1]) == alone[::-1]
    assert len({tuple(tokens) for tokens in alone}) > 32
    short = [len(t) < r.max_tokens for t, r in zip(alone, requests, strict=True)]
    assert any(short) or kind == "gpt2", "some end by themselves"


def test_the_attention_mask_of_padding_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would see a decoder that lets rows look at what fills them up."""
    model, requests = make_model(), some_requests(16)
    alone = [
        Decoder(model, ends=[END], max_batch_size=1).generate([request])[0] for request in requests
    ]
    monkeypatch.setattr(Decoder, "_masks", lambda *_: {})
    assert Decoder(model, ends=[END], max_batch_size=8).generate(requests) != alone


def test_a_cancelled_request_makes_room_at_once() -> None:
    model, requests = make_model(), some_requests(6)
    requests = [DecodingRequest(r.prefix, r.seed, 0.0, 0.9, 30) for r in requests]
    alone = [
        Decoder(model, ends=[], max_batch_size=1).generate([request])[0] for request in requests
    ]
    decoder = Decoder(model, ends=[], max_batch_size=2)
    numbers = [decoder.submit(request) for request in requests]
    written: dict[int, list[int]] = {number: [] for number in numbers}
    for step in range(200):
        if step == 3:
            decoder.cancel(numbers[0])  # active
            decoder.cancel(numbers[4])  # queued
            before = len(written[numbers[2]])
        for number, token in decoder.step():
            if token is not None:
                written[number].append(token)
        if step == 3:
            assert (before, len(written[numbers[2]])) == (0, 1), "the next one has its slot"
        assert len(decoder.active) <= 2
        if not decoder.busy:
            break
    assert written[numbers[0]] == alone[0][:3]
    assert written[numbers[4]] == []
    for place in (1, 2, 3, 5):
        assert written[numbers[place]] == alone[place]
    decoder.cancel(numbers[1])  # long done
    assert step + 1 == 3 + 30 + 30, "in the slot that was freed; none idle"


def test_tokens_are_streamed_and_each_request_ends_once() -> None:
    model, requests = make_model(), some_requests(5)
    whole = Decoder(model, ends=[END], max_batch_size=3).generate(requests)
    written: list[list[int]] = [[] for _ in requests]
    ended: list[int] = []
    for place, token in Decoder(model, ends=[END], max_batch_size=3).stream(requests):
        assert place not in ended
        if token is None:
            ended.append(place)
        else:
            written[place].append(token)
    assert written == whole
    assert sorted(ended) == list(range(5))


def test_the_kv_cache_holds_only_what_active_requests_need() -> None:
    model = make_model()
    decoder = Decoder(model, ends=[], max_batch_size=2)
    long = decoder.submit(DecodingRequest(torch.randn(40, WIDTH), 0, 0.0, 0.9, 50))
    decoder.submit(DecodingRequest(torch.randn(3, WIDTH), 1, 0.0, 0.9, 50))
    decoder.step()
    assert decoder.cache.get_seq_length() == 41
    decoder.cancel(long)
    assert decoder.cache.get_seq_length() == 4


def test_rounding_hardly_changes_a_sampled_token() -> None:
    """Of thousands of tokens nearly as likely as each other, as large vocabularies have them."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 5000, generator=draws)
    rounded = logits + 1e-6 * torch.randn(200, 5000, generator=draws)

    def chosen(asked: torch.Tensor) -> torch.Tensor:
        return sample_tokens(asked, 1.0, 0.95, range(200), [0] * 200)

    assert torch.equal(chosen(logits), chosen(rounded))


def test_tokens_are_sampled_with_their_probabilities() -> None:
    likely = torch.tensor([0.5, 0.25, 0.15, 0.1])
    many, logits = 8000, likely.log().expand(8000, 4)
    for seeds, positions in ((range(many), [3] * many), ([7] * many, range(many))):
        drawn = sample_tokens(logits, 1.0, 1.0, seeds, positions)
        torch.testing.assert_close(drawn.bincount() / many, likely, atol=0.02, rtol=0)
        for top_p, top_k in ((0.7, 0), (1.0, 2)):
            kept = sample_tokens(logits, 1.0, top_p, seeds, positions, top_k)
            torch.testing.assert_close(
                kept.bincount(minlength=4) / many,
                torch.tensor([2 / 3, 1 / 3, 0, 0]),
                atol=0.02,
                rtol=0,
            )


def test_top_p_excludes_unlikely_tokens_and_temperature_zero_is_greedy() -> None:
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.3, 0.15]])).repeat(300, 1)
    draws = range(300), [0] * 300
    assert set(sample_tokens(logits, 1.0, 0.8, *draws).tolist()) == {1, 2}
    assert set(sample_tokens(logits, 1.0, 1.0, *draws).tolist()) == {0, 1, 2, 3}
    assert set(sample_tokens(logits, 0.0, 1.0, *draws).tolist()) == {1}


def test_a_nucleus_of_many_tokens_is_that_of_the_sorted_vocabulary() -> None:
    """However many tokens it holds: a few, more than are looked at first, and all."""
    draws = torch.Generator().manual_seed(0)
    for spread, vocabulary in ((9.0, 3000), (1.0, 3000), (0.3, 3000), (2.0, 9), (1.0, 30_000)):
        logits = spread * torch.randn(6, vocabulary, generator=draws)
        probs = logits.double().softmax(dim=-1)
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        inside = ordered.cumsum(dim=-1) - ordered < 0.9
        for row in range(6):
            nucleus = set(order[row][inside[row]].tolist())
            many = 40 * len(nucleus) if len(nucleus) < 50 else 300
            drawn = sample_tokens(
                logits[row].expand(many, -1), 1.0, 0.9, [5] * many, range(many)
            ).tolist()
            assert set(drawn) <= nucleus
            assert len(set(drawn)) > min(len(nucleus), 60) / 3


def test_a_draw_depends_on_its_seed_and_place_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(64, 5000, generator=draws)
    seeds, positions = list(range(64)), [place % 5 for place in range(64)]
    for top_p, top_k in ((0.9, 0), (1.0, 0), (1.0, 100), (0.5, 100)):
        together = sample_tokens(logits, 0.9, top_p, seeds, positions, top_k)
        one_by_one = [
            int(sample_tokens(logits[i : i + 1], 0.9, top_p, [i], [positions[i]], top_k))
            for i in range(64)
        ]
        assert together.tolist() == one_by_one
        same = logits[:1].expand(64, -1)
        assert len(set(sample_tokens(same, 0.9, top_p, seeds, [0] * 64, top_k).tolist())) > 1
        assert len(set(sample_tokens(same, 0.9, top_p, [1] * 64, seeds, top_k).tolist())) > 1
