import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoModel

from catalog.artifacts import open_artifact, write_artifact
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from finetune.config import LoraConfig
from generate import everybody
from generate.pseudonyms import opaque_id
from generate.text import bulk, report, run, writer
from generate.text.config import BulkConfig, ScoreConfig, TextConfig, WriteConfig
from generate.text.decoding import Request, choose_tokens
from generate.text.faithful import Claim
from generate.text.features import feature_coverage, feature_match, shared_features
from generate.text.judge import word_judge
from generate.text.language_model import build_language_model, load_language_model
from generate.text.model import TextGenerator
from generate.text.prompts import Conditions
from generate.text.tokenizer import train_tokenizer
from pretrain.config import OptimizerConfig, TrainerConfig
from pretrain.optim import make_optimizer

WIDTH = 8
WORDS = ["soft and quiet", "bold and loud"]
TINY_GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96}


class FakeRanker:
    def __init__(self) -> None:
        vectors = np.random.default_rng(0).normal(size=(12, WIDTH))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.width = WIDTH
        self.item_vectors = vectors.astype(np.float32)

    def user_states(self, histories: list[np.ndarray]) -> Tensor:
        sums = [self.item_vectors[history].sum(axis=0) for history in histories]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(sums)), dim=-1)

    def rank(self, history: np.ndarray, k: int) -> list[tuple[int, float]]:
        scores = self.item_vectors @ self.user_states([history])[0].numpy()
        return [(int(item), float(scores[item])) for item in np.argsort(-scores)[:k]]


def build_trainer(config: TrainerConfig, folder: Path, title: str, callbacks=()) -> pl.Trainer:
    return pl.Trainer(
        max_steps=config.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model, tokenizer = build_language_model(TINY_GPT2, WORDS, vocab_size=300)
    model.save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextConfig:
    """Six people, twelve items and a recommender that never was trained."""
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shop"
    folder.mkdir()
    items = [f"i{item},Thing {item},a {'soft' if item % 2 else 'bold'} thing" for item in range(12)]
    rows = [
        f"p{person},i{(person + 2 * step) % 12},{step},{WORDS[person % 2]}"
        for person in range(6)
        for step in range(5)
    ]
    (folder / "items.csv").write_text("\n".join(["item_id,title,description", *items]) + "\n")
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,review", *rows]) + "\n"
    )
    with write_artifact(tmp_path / "recommender", "recommender") as staging:
        (staging / "weights").write_text("none")
    for module in ("generate.text.run", "generate.ranker"):
        monkeypatch.setattr(f"{module}.load_ranker", lambda folder, catalog: FakeRanker())
    return TextConfig(
        recommender=str(tmp_path / "recommender"),
        catalog=CatalogConfig(path=str(folder)),
        split=SplitConfig(kind="leave-one-out"),
        config={**TINY_GPT2},
        vocab_size=320,
        max_tokens=24,
        batch_size=4,
        trainer=TrainerConfig(max_steps=3, log_every=1, progress=False, accelerator="cpu"),
    )


def test_the_stage_leaves_an_artifact_that_writes(config: TextConfig, tmp_path: Path):
    output = run.run_text_generator(config, tmp_path / "words", build_trainer)

    metrics = open_artifact(output, "text-generator").manifest["metrics"]
    assert metrics["tasks"] == ["description", "review"]
    assert metrics["texts"] == 2 * 6 * 2  # tasks, people, next items in training
    curves = json.loads((output / "curves.json").read_text())
    assert [step for step, _ in curves["loss"]] == [1, 2, 3]
    opened = writer.open_writer(output)
    (written,) = opened.write("p1", "i3", "review")
    assert written.generator == opened.hash
    assert written.text == writer.write(output, user="p1", item="i3", task="review")
    first, second = opened.write(None, "i3", num_texts=2)
    assert (first.seed, second.seed) == (0, 1)
    with pytest.raises(VitrineError, match="no item 'i99'"):
        opened.write("p1", "i99")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return bulk.read_texts(folder).to_pylist()


def test_everybodys_texts_are_those_each_would_get_and_go_on_where_they_were(
    config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = run.run_text_generator(config, tmp_path / "words", build_trainer)
    monkeypatch.setattr(everybody, "BLOCK", 2)
    asked = BulkConfig(generator=str(output), items="top:3", write=WriteConfig(temperature=1.5))
    whole = rows_of(bulk.write_for_all(asked, tmp_path / "whole"))
    assert [(row["user"], row["rank"]) for row in whole] == [
        (opaque_id(f"p{person}"), place) for person in range(6) for place in range(3)
    ]
    opened = writer.open_writer(output)
    for row in whole[4:6]:
        again = WriteConfig(temperature=1.5, seed=row["seed"])
        assert opened.write("p1", row["item_id"], config=again)[0].text == row["text"]
    ranked = [item for item, _ in opened.ranker.rank(opened.catalog.interactions.history(4), 3)]
    assert [row["item_id"] for row in whole[12:15]] == [f"i{item}" for item in ranked]

    write_block, written = bulk.write_block, []

    def stop_after_two(opened: Any, users: np.ndarray, *rest: Any) -> list[dict[str, Any]]:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(users.tolist())
        return write_block(opened, users, *rest)

    monkeypatch.setattr(bulk, "write_block", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        bulk.write_for_all(asked, tmp_path / "broken")
    written.clear()
    assert not (tmp_path / "broken").exists()
    broken = bulk.write_for_all(asked, tmp_path / "broken")
    assert written == [[4, 5]]
    assert rows_of(broken) == whole
    assert not (tmp_path / "broken.work").exists()
    metrics = open_artifact(broken, "texts").manifest["metrics"]
    assert metrics == {"people": 6, "texts": 18, "own": 0}


def test_some_people_and_named_items_checked(
    config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = run.run_text_generator(config, tmp_path / "words", build_trainer)
    (tmp_path / "some.txt").write_text("p3\n\np1\n")
    asked = BulkConfig(
        generator=str(output),
        items="i7, i2",
        users=str(tmp_path / "some.txt"),
        write=WriteConfig(strict=True, tries=1),
    )
    false = [Claim("x", "unsupported", "word")]
    monkeypatch.setattr("generate.text.faithful.Checker.check", lambda *_: false)
    rows = rows_of(bulk.write_for_all(asked, tmp_path / "texts"))
    assert [(r["user"], r["item_id"]) for r in rows] == [
        (opaque_id(user), item) for user in ("p3", "p1") for item in ("i7", "i2")
    ]
    assert all(row["own"] for row in rows)
    assert [row["text"] for row in rows[:2]] == ["Thing 7. a soft thing", "Thing 2. a bold thing"]
    for wrong, told in (
        ({"items": "top:0"}, "top takes a number from 1 on"),
        ({"items": ","}, "items is empty"),
        ({"items": "i99"}, "no item 'i99'"),
        ({"users": "nobody.txt"}, "is no file"),
        ({"task": "title"}, "has not learned the task 'title'; it writes description, review"),
    ):
        with pytest.raises(VitrineError, match=told):
            bulk.write_for_all(replace(asked, **wrong), tmp_path / "wrong")
        assert not (tmp_path / "wrong.work").exists()


def test_a_pretrained_base_stays_as_it_was_under_lora(base: Path, tmp_path: Path):
    model, tokenizer, reference = load_language_model(str(base), LoraConfig())
    assert isinstance(model, PeftModel)
    generator = TextGenerator(
        model, tokenizer, width=WIDTH, tasks=("review",), max_tokens=24, base=reference
    )
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    optimizer = make_optimizer(generator.parameters(), OptimizerConfig(), 10)["optimizer"]
    users = torch.eye(2, WIDTH)
    token_ids, labels = generator.tokens(None, WORDS)
    for _ in range(2):  # LoRA's A moves only after B has
        nats, _ = generator(
            users, users * 0, torch.tensor([[-100]] * 2), torch.tensor([0, 0]), token_ids, labels
        )
        nats.sum().backward()
        optimizer.step()
    now = generator.state_dict()
    changed = {name for name, weight in now.items() if not torch.equal(weight, before[name])}
    base_weights = {n for n in now if n.startswith("language_model.") and "lora_" not in n}
    assert base_weights
    assert not changed & base_weights
    assert {n for n in now if "lora_" in n} <= changed
    assert "user_tokens.project.weight" in changed

    generator.eval().save_pretrained(tmp_path / "words")
    saved = {path.name for path in (tmp_path / "words").rglob("*.safetensors")}
    assert saved == {"adapter_model.safetensors", "projector.safetensors"}
    reopened = TextGenerator.from_pretrained(tmp_path / "words")
    ours, theirs = (
        one.loss_per_text(Conditions(users, users), "review", WORDS)
        for one in (generator, reopened)
    )
    assert torch.equal(ours[0], theirs[0])


def test_generators_on_one_base_take_turns(config: TextConfig, base: Path, tmp_path: Path):
    folders = {}
    for task, seed in (("description", 1), ("review", 2)):
        asked = replace(
            config,
            model=str(base),
            tasks=(task,),
            optimizer=OptimizerConfig(learning_rate=0.05),
            trainer=replace(config.trainer, seed=seed, max_steps=8),
        )
        folders[task] = run.run_text_generator(asked, tmp_path / task, build_trainer)
    settings = WriteConfig(temperature=1.0)

    def texts_of(one: writer.Writer, task: str) -> list[str]:
        return [found.text for found in one.write("p1", "i3", task, settings, num_texts=6)]

    alone = {task: texts_of(writer.open_writer(folder), task) for task, folder in folders.items()}
    assert alone["description"] != alone["review"]
    first = writer.open_writer(folders["description"])
    second = writer.open_writer(folders["review"], beside=first)
    assert second.generator.language_model is first.generator.language_model
    for _ in range(2):
        for task, one in (("description", first), ("review", second)):
            assert texts_of(one, task) == alone[task]
    other = replace(config, trainer=replace(config.trainer, seed=3))
    built = writer.open_writer(run.run_text_generator(other, tmp_path / "built", build_trainer))
    with pytest.raises(VitrineError, match="which is not 'a model built here'; open it alone"):
        writer.open_writer(folders["review"], beside=built)


class FakeLLM:
    """Takes what vLLM takes, and writes with our own decoder."""

    made: ClassVar[list[dict[str, Any]]] = []
    generator: ClassVar[TextGenerator]

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    def generate(self, prompts: list[Any], settings: list[Any], lora_request: Any) -> list[Any]:
        asked = [
            Request(p["prompt_embeds"], s.seed, s.temperature, s.top_p, s.max_tokens)
            for p, s in zip(prompts, settings, strict=True)
        ]
        assert {tuple(s.stop_token_ids) for s in settings} == {(self.generator.end,)}
        assert self.generator.end in settings[0].allowed_token_ids
        assert not set(self.generator.forbidden()) & set(settings[0].allowed_token_ids)
        assert (lora_request is None) == (self.generator.base is None)
        written = self.generator.decoder().write(asked)
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=[*ids, self.generator.end])])
            for ids in written
        ]


@pytest.mark.parametrize("pretrained", [False, True])
def test_vllm_gets_the_same_prompts(
    pretrained: bool,
    config: TextConfig,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    output = run.run_text_generator(
        replace(config, model=str(base) if pretrained else ""), tmp_path / "words", build_trainer
    )
    with pytest.raises(VitrineError, match=r"pip install 'vitrine\[vllm\]'"):
        writer.open_writer(output, engine="vllm")
    monkeypatch.setattr(FakeLLM, "made", [])
    monkeypatch.setattr(FakeLLM, "generator", TextGenerator.from_pretrained(output), raising=False)
    modules: dict[str, Any] = {
        "vllm": SimpleNamespace(LLM=FakeLLM, SamplingParams=SimpleNamespace),
        "vllm.lora": SimpleNamespace(),
        "vllm.lora.request": SimpleNamespace(LoRARequest=lambda *told: told),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    theirs = writer.open_writer(output, engine="vllm")
    ours = writer.open_writer(output)
    settings = WriteConfig(temperature=1.5, seed=4)
    for user, item in (("p1", "i3"), (None, "i3"), ("p2", None)):
        (found,) = theirs.write(user, item, "review", settings)
        assert found == ours.write(user, item, "review", settings)[0]
        assert list(theirs.stream(user, item, "review", settings)) == [found.text]
    (made,) = FakeLLM.made
    assert made["enable_prompt_embeds"] is True
    if pretrained:
        assert (made["model"], made["max_lora_rank"]) == (str(base), config.lora.rank)
    else:
        assert Path(made["model"]).is_relative_to(output)
    assert Path(made["tokenizer"], "tokenizer.json").is_file()


class Snapshots(pl.Callback):
    """Weights after each step, and what the batch told."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.vectors: list[bool] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        learned = module.generator.named_parameters()
        self.weights.append({n: p.detach().clone() for n, p in learned if p.requires_grad})
        told = (batch.user_states, batch.item_vectors, batch.voice_ids.clamp_min(0))
        self.vectors.append(any(bool(part.any()) for part in told))


def test_low_rank_updates_learn_first_and_prefix_tokens_after_them(
    config: TextConfig, base: Path, tmp_path: Path
):
    seen = Snapshots()

    def build(config: TrainerConfig, folder: Path, title: str, callbacks=()) -> pl.Trainer:
        return build_trainer(config, folder, title, callbacks=[*callbacks, seen])

    asked = replace(
        config,
        model=str(base),
        lora_steps=3,
        history_items=2,
        history_tokens=24,
        drop_user=0.0,
        trainer=replace(config.trainer, max_steps=6),
    )
    run.run_text_generator(asked, tmp_path / "words", build)
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
    for wrong in (replace(asked, model=""), replace(asked, lora_steps=6)):
        with pytest.raises(VitrineError, match=r"lora_steps \d is for a pretrained model"):
            run.run_text_generator(wrong, tmp_path / "wrong", build)


def test_another_base_of_the_same_name_is_refused(config: TextConfig, base: Path, tmp_path: Path):
    output = run.run_text_generator(
        replace(config, model=str(base)), tmp_path / "words", build_trainer
    )
    TextGenerator.from_pretrained(output)
    other, _ = build_language_model(TINY_GPT2, WORDS, vocab_size=300)
    other.save_pretrained(str(base))
    with pytest.raises(VitrineError, match="has other weights"):
        TextGenerator.from_pretrained(output)
    with pytest.raises(VitrineError, match=r"the language model .* cannot be loaded"):
        load_language_model("no/such/folder", LoraConfig())


def test_top_p_leaves_out_the_unlikely_and_temperature_zero_takes_the_likeliest():
    logits = torch.log(torch.tensor([[0.05, 0.5, 0.3, 0.15]])).repeat(300, 1)
    draws = [torch.Generator().manual_seed(seed) for seed in range(300)]
    assert set(choose_tokens(logits, 1.0, 0.8, draws).tolist()) == {1, 2}
    assert set(choose_tokens(logits, 1.0, 1.0, draws).tolist()) == {0, 1, 2, 3}
    assert set(choose_tokens(logits, 0.0, 1.0, draws).tolist()) == {1}


def test_reading_the_settings_does_not_import_torch():
    code = "import sys, generate.text.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_and_samples_of_a_generator(config: TextConfig, tmp_path: Path):
    output = run.run_text_generator(config, tmp_path / "words", build_trainer)
    judge = tmp_path / "judge"
    model = AutoModel.from_config(
        AutoConfig.for_model(
            "bert",
            vocab_size=320,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    model.save_pretrained(str(judge))
    train_tokenizer(WORDS, 300).save_pretrained(str(judge))
    asked = ScoreConfig(
        written=4, samples=2, judge=str(judge), write=WriteConfig(strict=True, tries=2)
    )
    folder = report.run_text_scores(output, asked, tmp_path / "scores")
    assert open_artifact(folder, "text-scores").parent("generator") == output
    scores = json.loads((folder / "scores.json").read_text())
    found = scores["written"]["description"]
    assert set(found["near"]) == {"words", str(judge)}
    assert -1 <= found["near"][str(judge)]["history"]["own"]["value"] <= 1.001
    assert set(found["strict"]) == {"catalogs_own", "tried"}, "no verdict of the check on itself"
    users = {opaque_id(f"p{number}") for number in range(6)}
    assert users > {one["user"] for one in found["examples"]} > set()
    told = report.describe_scores(scores)
    assert "description, item hidden: perplexity own " in told
    assert "unsupported: " in told
    page = (folder / "samples.md").read_text()
    assert page.count("\n## ") == 2
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert sum(line.startswith("| Thing") for line in rows) == 4
    for wrong in ({"people": 1}, {"written": 0}, {"samples": 0}):
        (name,) = wrong
        with pytest.raises(VitrineError, match=f"{name} is {wrong[name]}; give"):
            report.run_text_scores(output, ScoreConfig(**wrong), tmp_path / "more")
    alone = report.run_text_scores(output, ScoreConfig(written=1, samples=1), tmp_path / "alone")
    page = (alone / "samples.md").read_text()
    assert page.count("took last") == 1
    with pytest.raises(VitrineError, match="judge 'nowhere' cannot be loaded"):
        report.run_text_scores(output, ScoreConfig(judge="nowhere"), tmp_path / "more")


def test_features_matched_covered_and_shared():
    """By hand, after PETER's definitions."""
    true = [{"oak", "soft"}, {"soft"}, set()]
    written = [{"oak"}, {"red"}, {"red", "oak"}]
    hits, places = feature_match(written, true)
    assert (hits.tolist(), places.tolist()) == ([1, 0], [0, 1])
    assert feature_coverage(written, true) == 0.5
    assert shared_features(written) == pytest.approx(2 / 3)  # oak in 0, 2; red in 1, 2
    assert feature_coverage(written, [set()]) == 0


def test_shared_rare_words_make_texts_near():
    words = Counter({"soft": 90, "merino": 2, "oak": 3})
    facts: Any = SimpleNamespace(catalog=SimpleNamespace(num_items=100), words=words)
    vectors = word_judge(facts)(["soft merino", "merino", "soft oak", ""])
    near = vectors @ vectors.T
    assert near[0, 1] > 0.9
    assert near[0, 2] < 0.1
    assert near[3, 3] == 0
