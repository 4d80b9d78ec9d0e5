"""The causal language model of a text generator: a new small one, or a pretrained one with LoRA."""

import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.text.quantized import quantize_int8
from generate.text.tokenizer import Tokenizer, special_id, train_tokenizer
from pretrain.hub import (
    build_model,
    check_tokenizer,
    make_config,
    one_line_errors,
    read_model,
    read_tokenizer,
)


@dataclass(frozen=True)
class BaseModel:
    name: str
    """Name on the Hugging Face hub, or folder."""
    fingerprint: str
    """Hash of its weights, as they were stored."""
    quantize: str = "none"
    """In what its linear layers are held: none (as they are), or int8."""


def build_language_model(
    config: dict[str, Any], texts: Iterable[str], vocab_size: int
) -> tuple[PreTrainedModel, Tokenizer]:
    """Builds a model from a Hugging Face config mapping, and trains a tokenizer on `texts`."""
    settings = dict(config)
    model_type = settings.pop("model_type", None)
    if model_type is None:
        raise VitrineError("a text model's config needs `model_type`, such as llama or gpt2.")
    tokenizer = train_tokenizer(texts, vocab_size)
    settings |= {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model_config = make_config({"model_type": model_type, **settings}, "language model")
    return build_model(model_config, AutoModelForCausalLM), tokenizer


def load_language_model(
    name: str,
    lora: LoraConfig,
    texts: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
    gradient_checkpointing: bool = False,
    quantize: str = "none",
) -> tuple[PeftModel, Tokenizer, BaseModel]:
    """Loads a pretrained causal language model, by name or folder, frozen in `dtype`, with trainable LoRA
    in float32 (Hu et al. 2021) on each linear layer. Its tokenizer must be able to encode `texts`."""
    base, fingerprint = _load_base(name, dtype, quantize)
    if gradient_checkpointing:
        with one_line_errors(
            f"the language model {name!r} cannot compute its layers again",
            "leave gradient_checkpointing out",
        ):
            base.gradient_checkpointing_enable({"use_reentrant": False})
    tokenizer = read_tokenizer(name)
    check_tokenizer(tokenizer, name, texts, base.config.vocab_size)
    if special_id(tokenizer, "eos") is None:
        raise VitrineError(f"the tokenizer of {name!r} has no end token; choose another model.")
    settings = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        # GPT-2 stores its matrices transposed.
        fan_in_fan_out=base.config.model_type == "gpt2",
    )
    path = str(Path(name).resolve()) if Path(name).is_dir() else name
    reference = BaseModel(path, fingerprint, quantize)
    adapted = _without_warnings(lambda: get_peft_model(base, settings))
    assert isinstance(adapted, PeftModel)
    return adapted, tokenizer, reference


def load_adapted(base: BaseModel, adapter: Path) -> PeftModel:
    """Loads an adapter on the same base weights it was trained on."""
    model, fingerprint = _load_base(base.name, quantize=base.quantize)
    _check_fingerprint(base, fingerprint)
    return _without_warnings(lambda: PeftModel.from_pretrained(model, adapter))


def add_adapter(model: object, base: BaseModel, other: BaseModel | None, adapter: Path) -> str:
    """Adds a LoRA adapter to a model with the base `other`; returns the adapter's name, for `use_adapter`.

    Raises VitrineError where the adapter was trained on another base.
    """
    same = other and (other.fingerprint, other.quantize) == (base.fingerprint, base.quantize)
    if not isinstance(model, PeftModel) or not same:
        name = other.name if other else "a model built here"
        raise VitrineError(
            f"{adapter.parent} was trained on {base.name!r}, which is not {name!r}; open it alone."
        )
    name = f"adapter-{len(model.peft_config)}"
    model.load_adapter(str(adapter), adapter_name=name)
    return name


def use_adapter(model: object, name: str) -> None:
    """Activates one of several LoRA adapters on a base (adapter swap); without adapters does nothing."""
    if isinstance(model, PeftModel) and model.active_adapter != name:
        model.set_adapter(name)


def _check_fingerprint(base: BaseModel, fingerprint: str) -> None:
    if fingerprint != base.fingerprint:
        raise VitrineError(
            f"the language model {base.name!r} has other weights ({fingerprint[:12]}) than those this "
            f"generator was trained on ({base.fingerprint[:12]}); put the original back."
        )


def _load_base(
    name: str, dtype: torch.dtype = torch.float32, quantize: str = "none"
) -> tuple[PreTrainedModel, str]:
    """The model, and the fingerprint of its weights before they are quantized."""
    model = read_model(name, AutoModelForCausalLM, "the language model", dtype=dtype)
    fingerprint = _fingerprint(model)
    if quantize == "int8":
        quantize_int8(model, name)
    return model, fingerprint


def _without_warnings(adapt: Callable[[], Any]) -> Any:
    """What `adapt` returns, without peft's remark that quantized layers cannot absorb LoRA."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear")
        return adapt()


def _fingerprint(model: torch.nn.Module) -> str:
    """sha256 over the name, shape and first 256 values of every weight, in bfloat16, whatever the model is
    held in: cheap, and enough to distinguish two models of the same name."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().flatten()[:256].bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()
