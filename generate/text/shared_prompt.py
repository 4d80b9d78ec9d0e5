"""Likelihood of many texts after one prompt, which the language model reads once."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from generate.text.language_model import use_adapter
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.sequences import PADDING, pad_tokens
from generate.text.tokenizer import encode_texts


@torch.inference_mode()
def shared_prompt_nll(
    generator: TextGenerator, conditions: Conditions, task: str, texts: Sequence[str]
) -> Tensor:
    """Summed negative log-likelihood (nats) of each text under the same conditions: (texts,).

    As `TextGenerator.text_nll`, with `conditions` of one row, whose keys and values are computed once. The
    model's attention must reach back to the beginning (no sliding windows).
    """
    use_adapter(generator.language_model, generator.adapter)
    inputs = generator.condition_inputs(conditions, task, 1)
    index = generator.tasks.index(task)
    sequences = generator.sequences
    (prompt,) = sequences.prompts([index], conditions.data, generator.uses_soft_tokens)
    ends = [sequences.templates[index].end] * len(texts)
    answers = pad_tokens(encode_texts(generator.tokenizer, texts, sequences.max_tokens, ends))
    answers = answers.to(inputs[0].device)
    with generator.compute.autocast():
        embedded = generator.embed_sequences(
            torch.tensor([prompt], device=answers.device), generator.soft_tokens(*inputs)
        )
        cache = DynamicCache()
        model = generator.language_model
        read = model(
            inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits = read.logits.expand(len(texts), -1, -1)
        if answers.shape[1] > 1:
            cache.batch_repeat_interleave(len(texts))
            # Padding follows the text, so no real token attends to it; the last one predicts nothing.
            ids = answers[:, :-1].clamp_min(0)
            after = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
            logits = torch.cat([logits, after], dim=1)
    token_nll = F.cross_entropy(
        logits.float().flatten(0, 1), answers.flatten(), ignore_index=PADDING, reduction="none"
    )
    return token_nll.view_as(answers).sum(dim=1)
