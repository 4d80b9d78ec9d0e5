"""Decoding with a real language model: sampling from a large vocabulary, and speed against transformers'.

python -m benchmarks.decoding    # about ten minutes on one core
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.batching import alone, in_turns, spread
from benchmarks.pretrained import pretrained_folder
from benchmarks.record import write_record
from generate.text.decoding import Decoder, DecodingRequest
from generate.text.sampling import sample_tokens

VOCABULARY, ROWS = 152_000, 64
SPREADS = {"peaked": 4.0, "flat": 1.5}
"""Standard deviation of the logits: in nats, before a temperature of 0.7. A nucleus of .9 then holds about a
hundred tokens, or ten thousand."""
TEMPERATURE, TOP_P = 0.7, 0.9
SAMPLING_ROUNDS, ROUNDS = 7, 3
REQUESTS, SLOTS = 24, 8
ALONE_TOKENS, EQUAL_TOKENS = 48, 16


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    for name, deviation in SPREADS.items():
        figures |= sampling(name, deviation)
    model = AutoModelForCausalLM.from_pretrained(
        pretrained_folder("words"), dtype=torch.float32
    ).eval()
    figures |= ragged(model)
    prompt = embedded(model, np.arange(1000, 1100))
    figures |= alone(model, prompt[None], ALONE_TOKENS, ROUNDS)
    figures |= beside_generate_batch(model)
    write_record(
        "text-decoding",
        claim="A token is drawn from a vocabulary of 152,000 within 5 ms, whatever the batch, and a ragged "
        "load is decoded with a real model faster than by transformers.",
        command="python -m benchmarks.decoding",
        seeds=[0],
        figures=figures,
        sources=[
            "benchmarks/batching.py",
            "generate/text/decoding.py",
            "generate/text/sampling.py",
        ],
        goal=[
            *(f"{name}_ms_per_token <= 5" for name in SPREADS),
            *(f"{name}_draws_that_differ == 0" for name in SPREADS),
            "ragged_over_generate_low >= 1.1",
            "alone_over_generate >= 0.95",
            "equal_over_generate_batch_low >= 1.1",
        ],
        note=f"One core. Sampling: {ROWS} rows of {VOCABULARY:,} normal logits (standard deviation "
        f"{SPREADS['peaked']} peaked, {SPREADS['flat']} flat), temperature {TEMPERATURE}, top_p {TOP_P}; CPU "
        f"milliseconds of a step over its {ROWS} tokens, median of {SAMPLING_ROUNDS}, and of a row alone; "
        "draws that differ between one batch of 64, batches of 7 and single rows. Model: "
        f"SmolLM2-135M-Instruct in float32. Ragged: {REQUESTS} prompts of 20 to 200 tokens, greedy, as many "
        f"tokens each as a geometric distribution of mean 24 says, at most 96, {SLOTS} at a time; "
        "generate: left-padded "
        "batches in the same order until the longest has ended. Equal: prompts of one length and "
        f"{EQUAL_TOKENS} tokens each, as generate_batch (transformers' continuous batching) takes one length "
        "for all. Tokens a CPU second; ratios of rounds taken in turns: median, lowest and highest.",
    )


def sampling(name: str, deviation: float) -> dict[str, float]:
    draws = torch.Generator().manual_seed(0)
    logits = deviation * torch.randn(ROWS, VOCABULARY, generator=draws)

    def draw(rows: Sequence[int], position: int) -> list[int]:
        return sample_tokens(
            logits[list(rows)], TEMPERATURE, TOP_P, list(rows), [position] * len(rows)
        ).tolist()

    seconds: dict[int, list[float]] = {1: [], ROWS: []}
    for size, found in seconds.items():
        for turn in range(SAMPLING_ROUNDS):
            began = time.process_time()
            draw(range(size), turn)
            found.append(time.process_time() - began)
    differ = 0
    for position in range(3):
        whole = draw(range(ROWS), position)
        for size in (1, 7):
            parts = [range(start, min(start + size, ROWS)) for start in range(0, ROWS, size)]
            again = [token for part in parts for token in draw(part, position)]
            differ += sum(ours != theirs for ours, theirs in zip(whole, again, strict=True))
    return {
        f"{name}_ms_per_token": 1000 * float(np.median(seconds[ROWS])) / ROWS,
        f"{name}_ms_alone": 1000 * float(np.median(seconds[1])),
        f"{name}_draws_that_differ": differ,
    }


def ragged(model: torch.nn.Module) -> dict[str, object]:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 24, REQUESTS), 96)
    prompts = [
        embedded(model, rng.integers(100, 40_000, size)) for size in rng.integers(20, 201, REQUESTS)
    ]
    requests = [
        DecodingRequest(prompt, 0, 0.0, 1.0, int(length))
        for prompt, length in zip(prompts, lengths, strict=True)
    ]

    def ours() -> None:
        Decoder(model, ends=[], max_batch_size=SLOTS).generate(requests)

    def generate() -> None:
        for start in range(0, REQUESTS, SLOTS):
            part = slice(start, start + SLOTS)
            padded_generate(model, prompts[part], int(lengths[part].max()))

    seconds = in_turns([ours, generate], ROUNDS)
    return {
        "ragged_tokens_per_second": float(lengths.sum() / np.median(seconds[0])),
        "ragged_over_generate": spread(seconds[1] / seconds[0]),
    }


def beside_generate_batch(model: torch.nn.Module) -> dict[str, object]:
    rng = np.random.default_rng(1)
    ids = rng.integers(100, 40_000, (SLOTS, 64))
    requests = [DecodingRequest(embedded(model, row), 0, 0.0, 1.0, EQUAL_TOKENS) for row in ids]
    config = GenerationConfig(
        max_new_tokens=EQUAL_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    def theirs() -> None:
        found = model.generate_batch(ids.tolist(), generation_config=config, warmup=False)  # type: ignore[operator]
        assert all(len(one.generated_tokens) == EQUAL_TOKENS for one in found.values())

    seconds = in_turns(
        [lambda: Decoder(model, ends=[], max_batch_size=SLOTS).generate(requests), theirs],
        ROUNDS,
    )
    return {"equal_over_generate_batch": spread(seconds[1] / seconds[0])}


@torch.inference_mode()
def embedded(model: torch.nn.Module, ids: NDArray[np.int64]) -> torch.Tensor:
    return model.get_input_embeddings()(torch.from_numpy(ids))  # type: ignore[operator]


@torch.inference_mode()
def padded_generate(model: torch.nn.Module, prompts: Sequence[torch.Tensor], tokens: int) -> None:
    longest = max(map(len, prompts))
    padded = torch.zeros(len(prompts), longest, prompts[0].shape[-1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padded[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    config = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    model.generate(inputs_embeds=padded, attention_mask=mask, generation_config=config)  # type: ignore[operator]


if __name__ == "__main__":
    main()
