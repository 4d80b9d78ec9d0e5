"""The text generation stage: its artifact, LoRA on a pretrained base, inference engines."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from peft import PeftModel
from torch import Tensor

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate.text.checkpoint import load_text_generator, save_text_generator
from generate.text.config import TextConfig, WriteConfig
from generate.text.decoding import DecodingRequest
from generate.text.language_model import build_language_model, load_language_model
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.run import run_text_generator
from generate.text.settings import TextGeneratorSettings
from generate.text.tasks import load_task
from generate.text.writer import BatchWriter, load_writer, write
from pretrain.config import OptimizerConfig, TrainerConfig
from pretrain.optim import make_optimizer
from tests.generate.text_stage import TEXTS, TINY_GPT2, WIDTH, build_trainer


def test_the_stage_leaves_an_artifact_that_writes(text_config: TextConfig, tmp_path: Path) -> None:
    output = run_text_generator(text_config, tmp_path / "text", build_trainer)

    metrics = open_artifact(output, "text-generator").manifest["metrics"]
    assert metrics["tasks"] == ["description", "review"]
    assert metrics["texts"] == 2 * 6 * 2  # tasks, users, next items in training
    curves = json.loads((output / "curves.json").read_text())
    assert [step for step, _ in curves["loss"]] == [1, 2, 3]
    writer = load_writer(output)
    (written,) = writer.write("p1", "i3", "review")
    assert written.generator == writer.hash
    assert written.text == write(output, user="p1", item="i3", task="review")
    first, second = writer.write(None, "i3", num_texts=2)
    assert (first.seed, second.seed) == (0, 1)
    with pytest.raises(VitrineError, match="no item 'i99'"):
        writer.write("p1", "i99")


def test_a_pretrained_base_stays_as_it_was_under_lora(text_base: Path, tmp_path: Path) -> None:
    model, tokenizer, reference = load_language_model(str(text_base), LoraConfig())
    assert isinstance(model, PeftModel)
    settings = TextGeneratorSettings(width=WIDTH, tasks=(load_task("review"),), max_tokens=24)
    generator = TextGenerator(model, tokenizer, settings, base=reference)
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    optimizer = make_optimizer(generator.parameters(), OptimizerConfig(), 10)["optimizer"]
    users = torch.eye(2, WIDTH)
    token_ids, labels = generator.sequences.training_rows([0, 0], None, TEXTS)
    for _ in range(2):  # LoRA's A moves only after B has
        nll, _ = generator(
            users, users * 0, torch.tensor([[-100]] * 2), torch.tensor([0, 0]), token_ids, labels
        )
        nll.sum().backward()
        optimizer.step()
    now = generator.state_dict()
    changed = {name for name, weight in now.items() if not torch.equal(weight, before[name])}
    base_weights = {n for n in now if n.startswith("language_model.") and "lora_" not in n}
    assert base_weights
    assert not changed & base_weights
    assert {n for n in now if "lora_" in n} <= changed
    assert "user_tokens.project.weight" in changed

    save_text_generator(generator.eval(), tmp_path / "text")
    saved = {path.name for path in (tmp_path / "text").rglob("*.safetensors")}
    assert saved == {"adapter_model.safetensors", "projector.safetensors"}
    loaded = load_text_generator(tmp_path / "text")
    ours, theirs = (
        one.text_nll(Conditions(users, users), "review", TEXTS) for one in (generator, loaded)
    )
    assert torch.equal(ours[0], theirs[0])


def test_generators_on_a_shared_base_swap_their_adapters(
    text_config: TextConfig, text_base: Path, tmp_path: Path
) -> None:
    folders = {}
    for task, seed in (("description", 1), ("review", 2)):
        settings = replace(
            text_config,
            model=str(text_base),
            prompt="none",
            tasks=(task,),
            optimizer=OptimizerConfig(learning_rate=0.05),
            trainer=replace(text_config.trainer, seed=seed, max_steps=8),
        )
        folders[task] = run_text_generator(settings, tmp_path / task, build_trainer)
    settings = WriteConfig(temperature=1.0)

    def texts_of(one: BatchWriter, task: str) -> list[str]:
        return [found.text for found in one.write("p1", "i3", task, settings, num_texts=6)]

    alone = {task: texts_of(load_writer(folder), task) for task, folder in folders.items()}
    assert alone["description"] != alone["review"]
    first = load_writer(folders["description"])
    second = load_writer(folders["review"], shared_base=first)
    assert second.generator.language_model is first.generator.language_model
    for _ in range(2):
        for task, one in (("description", first), ("review", second)):
            assert texts_of(one, task) == alone[task]
    other = replace(text_config, trainer=replace(text_config.trainer, seed=3))
    built = load_writer(run_text_generator(other, tmp_path / "built", build_trainer))
    with pytest.raises(VitrineError, match="which is not 'a model built here'; open it alone"):
        load_writer(folders["review"], shared_base=built)


class FakeLLM:
    """Has the interface of vLLM's LLM, and decodes with our own decoder."""

    made: ClassVar[list[dict[str, Any]]] = []
    generator: ClassVar[TextGenerator]

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    def generate(self, prompts: list[Any], settings: list[Any], lora_request: Any) -> list[Any]:
        requests = [
            DecodingRequest(p["prompt_embeds"], s.seed, s.temperature, s.top_p, s.max_tokens)
            for p, s in zip(prompts, settings, strict=True)
        ]
        (end,) = self.generator.sequences.ends
        assert {tuple(s.stop_token_ids) for s in settings} == {(end,)}
        assert end in settings[0].allowed_token_ids
        assert not set(self.generator.forbidden_tokens()) & set(settings[0].allowed_token_ids)
        assert (lora_request is None) == (self.generator.base is None)
        written = self.generator.decoder().generate(requests)
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=[*ids, end])]) for ids in written
        ]


@pytest.mark.parametrize("pretrained", [False, True])
def test_vllm_gets_the_same_prefix_embeddings(
    pretrained: bool,
    text_config: TextConfig,
    text_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = run_text_generator(
        replace(text_config, model=str(text_base) if pretrained else "", prompt="none"),
        tmp_path / "text",
        build_trainer,
    )
    with pytest.raises(VitrineError, match=r"pip install 'vitrine\[vllm\]'"):
        load_writer(output, config=WriteConfig(engine="vllm"))
    monkeypatch.setattr(FakeLLM, "made", [])
    monkeypatch.setattr(FakeLLM, "generator", load_text_generator(output), raising=False)
    modules: dict[str, Any] = {
        "vllm": SimpleNamespace(LLM=FakeLLM, SamplingParams=SimpleNamespace),
        "vllm.lora": SimpleNamespace(),
        "vllm.lora.request": SimpleNamespace(LoRARequest=lambda *given: given),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    theirs = load_writer(output, config=WriteConfig(engine="vllm"))
    ours = load_writer(output)
    settings = WriteConfig(temperature=1.5, seed=4)
    for user, item in (("p1", "i3"), (None, "i3"), ("p2", None)):
        (found,) = theirs.write(user, item, "review", settings)
        assert found == ours.write(user, item, "review", settings)[0]
        assert list(theirs.stream(user, item, "review", settings)) == [found.text]
    (made,) = FakeLLM.made
    assert made["enable_prompt_embeds"] is True
    if pretrained:
        assert (made["model"], made["max_lora_rank"]) == (str(text_base), text_config.lora.rank)
    else:
        assert Path(made["model"]).is_relative_to(output)
    assert Path(made["tokenizer"], "tokenizer.json").is_file()


class Snapshots(pl.Callback):
    """Weights after each step, and whether its batch had vector conditions."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.vectors: list[bool] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        named = module.generator.named_parameters()
        self.weights.append({n: p.detach().clone() for n, p in named if p.requires_grad})
        conditions = (batch.user_states, batch.item_vectors, batch.style_ids.clamp_min(0))
        self.vectors.append(any(bool(part.any()) for part in conditions))


def test_lora_is_trained_first_and_prefix_tokens_after_it(
    text_config: TextConfig, text_base: Path, tmp_path: Path
) -> None:
    seen = Snapshots()

    def build(config: TrainerConfig, folder: Path, title: str, callbacks=()) -> pl.Trainer:
        return build_trainer(config, folder, title, callbacks=[*callbacks, seen])

    settings = replace(
        text_config,
        model=str(text_base),
        prompt="none",
        lora_steps=3,
        num_history_items=2,
        max_prompt_tokens=24,
        drop_user=0.0,
        trainer=replace(text_config.trainer, max_steps=6),
    )
    run_text_generator(settings, tmp_path / "text", build)
    assert seen.vectors == [False] * 3 + [True] * 3
    for name, early in seen.weights[0].items():
        middle, late = seen.weights[2][name], seen.weights[5][name]
        if "lora_" in name:
            assert torch.equal(middle, late), name
        else:
            assert torch.equal(early, middle), name
    moved = {n for n, w in seen.weights[0].items() if not torch.equal(w, seen.weights[5][n])}
    assert any("lora_B" in name for name in moved)
    assert "user_tokens.project.weight" in moved
    for wrong in (replace(settings, model=""), replace(settings, lora_steps=6)):
        with pytest.raises(VitrineError, match=r"lora_steps \d is for a pretrained model"):
            run_text_generator(wrong, tmp_path / "wrong", build)


def test_another_base_of_the_same_name_is_refused(
    text_config: TextConfig, text_base: Path, tmp_path: Path
) -> None:
    output = run_text_generator(
        replace(text_config, model=str(text_base), prompt="none"), tmp_path / "text", build_trainer
    )
    load_text_generator(output)
    other, _ = build_language_model(TINY_GPT2, TEXTS, vocab_size=300)
    other.save_pretrained(str(text_base))
    with pytest.raises(VitrineError, match="has other weights"):
        load_text_generator(output)
    with pytest.raises(VitrineError, match=r"the language model .* cannot be loaded"):
        load_language_model("no/such/folder", LoraConfig())


def test_reading_the_settings_does_not_import_torch() -> None:
    code = "import sys, generate.text.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
