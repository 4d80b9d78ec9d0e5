"""Continuous batching of text generation: outputs equal to those of single requests, latency, speed.

python -m benchmarks.batching    # about ten minutes on one core
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmarks.record import write_record
from finetune.statistics import Interval
from generate.text.decoding import Decoder, DecodingRequest

SHAPES = {
    "llama": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "max_position_embeddings": 512,
    },
    "gpt2": {"n_embd": 256, "n_layer": 6, "n_head": 8, "n_positions": 512},
    "qwen2": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    },
}
WIDTH, VOCABULARY, END = 256, 4096, 2
REQUESTS, SLOTS = 64, 16
SEEDS, ROUNDS = 3, 9


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    figures["equal_to_alone"] = sum(
        equal_to_alone(kind, seed) for kind in SHAPES for seed in range(SEEDS)
    )
    figures["steps_until_a_cancelled_slot_is_used"] = steps_until_used()
    model = make_model("llama")
    figures |= ragged_load(model)
    figures |= alone(model, torch.randn(1, 10, WIDTH), 128)
    write_record(
        "text-batching",
        claim="Each of 64 mixed requests is written as alone, a cancelled one makes room at once, a "
        "ragged load is written faster than in batches that wait for their longest, and one text as "
        "fast as transformers writes it.",
        command="python -m benchmarks.batching",
        seeds=range(SEEDS),
        figures=figures,
        sources=["generate/text/decoding.py"],
        goal=[
            f"equal_to_alone == {REQUESTS * SEEDS * len(SHAPES)}",
            "steps_until_a_cancelled_slot_is_used == 1",
            "ragged_over_static_low >= 1.3",
            "ragged_over_generate_low >= 1.3",
            "alone_over_generate >= 0.95",
        ],
        note=f"Untrained models of six layers ({', '.join(SHAPES)}; speed with llama) in float32 on one "
        f"core. Equal: prefixes of 1 to 40 vectors, 1 to 120 tokens, three temperatures, {SLOTS} slots, "
        f"{SEEDS} seeds. Ragged: {REQUESTS} texts, the likeliest token each time, whose lengths are drawn "
        "from a geometric distribution of mean 32, at most 200; static: the same decoder, batches of "
        f"{SLOTS} that all go on until their longest has ended; shrinking: the same, but whoever has ended "
        "leaves at once and no request joins; generate: transformers' own in such batches, left "
        "padded, each until its longest has ended. Tokens a CPU second that belong to a text. alone: 128 "
        f"tokens of one text. Ratios of {ROUNDS} rounds taken in turns: the median, and the lowest and "
        "highest.",
    )


def make_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    special = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0}
    settings = {"vocab_size": VOCABULARY, "initializer_range": 0.1, **special, **SHAPES[kind]}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()


def equal_to_alone(kind: str, seed: int) -> int:
    """Number of requests whose tokens are the same alone and in a mixed batch."""
    model, rng = make_model(kind), np.random.default_rng(seed)
    requests = [
        DecodingRequest(
            torch.randn(int(rng.integers(1, 41)), WIDTH),
            seed=int(rng.integers(2**31)),
            temperature=(0.0, 0.7, 1.3)[place % 3],
            top_p=(0.9, 1.0)[place % 2],
            max_tokens=int(rng.integers(1, 121)),
        )
        for place in range(REQUESTS)
    ]
    mixed = Decoder(model, ends=[END], max_batch_size=SLOTS).generate(requests)
    one = [
        Decoder(model, ends=[END], max_batch_size=1).generate([request])[0] for request in requests
    ]
    return sum(ours == theirs for ours, theirs in zip(mixed, one, strict=True))


def steps_until_used() -> int:
    """Decoder steps from cancelling an active request to the first token of a queued one."""
    decoder = Decoder(make_model("llama"), ends=[], max_batch_size=4)
    numbers = [
        decoder.submit(DecodingRequest(torch.randn(4, WIDTH), n, 0.0, 1.0, 50)) for n in range(5)
    ]
    for _ in range(3):
        decoder.step()
    decoder.cancel(numbers[1])
    for step in range(1, 100):
        if any(number == numbers[4] for number, _ in decoder.step()):
            return step
    raise AssertionError("never")


def ragged_load(model: torch.nn.Module) -> dict[str, object]:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 32, REQUESTS), 200)
    prefixes = torch.randn(REQUESTS, 10, WIDTH)
    requests = [
        DecodingRequest(prefix, 0, 0.0, 1.0, int(length))
        for prefix, length in zip(prefixes, lengths, strict=True)
    ]
    total = int(lengths.sum())

    def ours() -> None:
        written = Decoder(model, ends=[], max_batch_size=SLOTS).generate(requests)
        assert [len(text) for text in written] == lengths.tolist()

    def static() -> None:
        for start in range(0, REQUESTS, SLOTS):
            part = requests[start : start + SLOTS]
            longest = max(request.max_tokens for request in part)
            padded = [replace(request, max_tokens=longest) for request in part]
            Decoder(model, ends=[], max_batch_size=SLOTS).generate(padded)

    def shrinking() -> None:
        for start in range(0, REQUESTS, SLOTS):
            Decoder(model, ends=[], max_batch_size=SLOTS).generate(requests[start : start + SLOTS])

    def generate() -> None:
        for start in range(0, REQUESTS, SLOTS):
            part = slice(start, start + SLOTS)
            generate_with(model, prefixes[part], int(lengths[part].max()))

    seconds = in_turns([ours, static, shrinking, generate])
    return {
        "ragged_tokens_per_second": total / float(np.median(seconds[0])),
        "ragged_over_static": spread(seconds[1] / seconds[0]),
        "ragged_over_shrinking": spread(seconds[2] / seconds[0]),
        "ragged_over_generate": spread(seconds[3] / seconds[0]),
    }


def alone(
    model: torch.nn.Module, prefix: torch.Tensor, length: int, rounds: int = ROUNDS
) -> dict[str, object]:
    """One text of `length` tokens after a prefix (1, tokens, width)."""
    request = DecodingRequest(prefix[0], 0, 0.0, 1.0, length)
    seconds = in_turns(
        [
            lambda: Decoder(model, ends=[], max_batch_size=1).generate([request]),
            lambda: generate_with(model, prefix, length),
        ],
        rounds,
    )
    return {
        "alone_tokens_per_second": length / float(np.median(seconds[0])),
        "alone_over_generate": spread(seconds[1] / seconds[0]),
    }


@torch.inference_mode()
def generate_with(model: torch.nn.Module, prefixes: torch.Tensor, tokens: int) -> None:
    config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    found = model.generate(  # type: ignore[operator]
        inputs_embeds=prefixes,
        attention_mask=torch.ones(prefixes.shape[:2], dtype=torch.long),
        generation_config=config,
    )
    assert found.shape[-1] == tokens


def in_turns(tasks: list[Callable[[], object]], rounds: int = ROUNDS) -> np.ndarray:
    """CPU seconds of each task in each round: (tasks, rounds), after one warm-up round."""
    seconds = np.empty((len(tasks), rounds + 1))
    for turn in range(rounds + 1):
        for place, task in enumerate(tasks):
            began = time.process_time()
            task()
            seconds[place, turn] = time.process_time() - began
    return seconds[:, 1:]


def spread(ratios: np.ndarray) -> Interval:
    return Interval(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


if __name__ == "__main__":
    main()
