"""Words by vLLM on GPUs: the same prefixes in another engine (the `vllm` extra).

Its draws are its own: there, too, a request and its seed say what is written, but not the very words
that our own decoder writes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from catalog.errors import VitrineError
from generate.text.decoding import Request
from generate.text.model import ADAPTER, LANGUAGE_MODEL, TOKENIZER, TextGenerator

SEEDS = 2**31
"""vLLM draws from 32-bit seeds."""


def vllm_engine(
    generator: TextGenerator, folder: Path, **options: Any
) -> Callable[[Sequence[Request]], list[list[int]]]:
    """Writes requests as `Decoder.write` does; `folder` is the generator's, `options` are `vllm.LLM`'s.

    Raises VitrineError where vLLM is not installed.
    """
    try:
        from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise VitrineError(
            "engine vllm needs vLLM and a GPU; install it with pip install 'vitrine[vllm]', or leave "
            "engine out."
        ) from error
    model, adapter = str(folder / LANGUAGE_MODEL), None
    if generator.base:
        model, adapter = generator.base.name, LoRARequest("vitrine", 1, str(folder / ADAPTER))
        options |= {"enable_lora": True, "max_lora_rank": generator.rank}
    llm = LLM(model=model, tokenizer=str(folder / TOKENIZER), enable_prompt_embeds=True, **options)
    forbidden = set(generator.forbidden())
    allowed = [
        token
        for token in range(generator.language_model.config.vocab_size)
        if token not in forbidden
    ]

    def write(requests: Sequence[Request]) -> list[list[int]]:
        settings = [
            SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                seed=request.seed % SEEDS,
                stop_token_ids=[generator.end],
                allowed_token_ids=allowed,
            )
            for request in requests
        ]
        prompts = [{"prompt_embeds": request.prefix.detach().cpu()} for request in requests]
        found = llm.generate(prompts, settings, lora_request=adapter)
        tokens = [list(one.outputs[0].token_ids) for one in found]
        return [ids[:-1] if ids and ids[-1] == generator.end else ids for ids in tokens]

    return write
