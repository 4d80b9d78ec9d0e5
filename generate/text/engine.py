"""vLLM as inference engine on GPUs, with the same prefix embeddings (the `vllm` extra).

vLLM has its own sampler: the same request with the same seed gives the same text again, but another one
than `Decoder`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from catalog.errors import VitrineError
from generate.text.checkpoint import ADAPTER, LANGUAGE_MODEL, TOKENIZER
from generate.text.decoding import DecodingRequest
from generate.text.model import TextGenerator

NUM_SEEDS = 2**31
"""vLLM takes 32-bit seeds."""


def vllm_engine(
    generator: TextGenerator, folder: Path, **options: Any
) -> Callable[[Sequence[DecodingRequest]], list[list[int]]]:
    """Returns a function like `Decoder.generate`; `folder` is the generator's, `options` are for `vllm.LLM`.

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
        assert isinstance(generator.language_model, PeftModel)
        rank = getattr(generator.language_model.peft_config[generator.adapter], "r", 0)
        options |= {"enable_lora": True, "max_lora_rank": rank}
    llm = LLM(model=model, tokenizer=str(folder / TOKENIZER), enable_prompt_embeds=True, **options)
    forbidden, ends = set(generator.forbidden_tokens()), generator.sequences.ends
    allowed = [
        token
        for token in range(generator.language_model.config.vocab_size)
        if token not in forbidden
    ]

    def generate(requests: Sequence[DecodingRequest]) -> list[list[int]]:
        settings = [
            SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k or -1,
                max_tokens=request.max_tokens,
                seed=request.seed % NUM_SEEDS,
                stop_token_ids=sorted(ends),
                allowed_token_ids=allowed,
            )
            for request in requests
        ]
        prompts = [{"prompt_embeds": request.prefix.detach().cpu()} for request in requests]
        outputs = llm.generate(prompts, settings, lora_request=adapter)
        tokens = [list(one.outputs[0].token_ids) for one in outputs]
        return [ids[:-1] if ids and ids[-1] in ends else ids for ids in tokens]

    return generate
