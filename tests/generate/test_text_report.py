"""Scores and samples of a text generator, feature metrics, tf-idf similarity."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from generate.pseudonyms import pseudonymize
from generate.text.config import TextConfig, TextScoreConfig, WriteConfig
from generate.text.feature_metrics import feature_coverage, feature_match, shared_features
from generate.text.report import describe_scores, run_text_scores
from generate.text.run import run_text_generator
from generate.text.similarity import tfidf_encoder
from generate.text.tokenizer import train_tokenizer
from tests.generate.text_stage import TEXTS, build_trainer


def test_scores_and_samples_of_a_generator(text_config: TextConfig, tmp_path: Path) -> None:
    output = run_text_generator(text_config, tmp_path / "text", build_trainer)
    encoder = tmp_path / "encoder"
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
    model.save_pretrained(str(encoder))
    train_tokenizer(TEXTS, 300).save_pretrained(str(encoder))
    settings = TextScoreConfig(
        num_generated=4,
        num_sample_users=2,
        text_encoder=str(encoder),
        write=WriteConfig(verify_claims=True, max_attempts=2),
    )
    folder = run_text_scores(output, settings, tmp_path / "scores")
    assert open_artifact(folder, "text-scores").parent("generator") == output
    scores = json.loads((folder / "scores.json").read_text())
    figures = scores["generated"]["description"]
    assert set(figures["similarity"]) == {"tf-idf", str(encoder)}
    assert -1 <= figures["similarity"][str(encoder)]["history"]["own"]["value"] <= 1.001
    assert set(figures["verified"]) == {"fallback_share", "mean_attempts"}, (
        "the check is no evidence for itself"
    )
    users = {pseudonymize(f"p{number}") for number in range(6)}
    assert users > {one["user"] for one in figures["examples"]} > set()
    lines = describe_scores(scores)
    assert "description, item hidden: perplexity own " in lines
    assert "unsupported claims: " in lines
    page = (folder / "samples.md").read_text()
    assert page.count("\n## ") == 2
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
    assert sum(line.startswith("| Thing") for line in rows) == 4
    alone = run_text_scores(
        output, TextScoreConfig(num_generated=1, num_sample_users=1), tmp_path / "alone"
    )
    assert (alone / "samples.md").read_text().count("bought last") == 1


def test_wrong_score_settings_are_refused(text_config: TextConfig, tmp_path: Path) -> None:
    output = run_text_generator(text_config, tmp_path / "text", build_trainer)
    for wrong in ({"num_users": 1}, {"num_generated": 0}, {"num_sample_users": 0}):
        (name,) = wrong
        with pytest.raises(VitrineError, match=f"{name} is {wrong[name]}; give"):
            run_text_scores(output, TextScoreConfig(**wrong), tmp_path / "more")
    with pytest.raises(VitrineError, match="text encoder 'nowhere' cannot be loaded"):
        run_text_scores(output, TextScoreConfig(text_encoder="nowhere"), tmp_path / "more")


def test_feature_match_coverage_and_diversity_are_those_of_peter() -> None:
    """By hand, after PETER's definitions."""
    true = [{"oak", "soft"}, {"soft"}, set()]
    written = [{"oak"}, {"red"}, {"red", "oak"}]
    hits, indices = feature_match(written, true)
    assert (hits.tolist(), indices.tolist()) == ([1, 0], [0, 1])
    assert feature_coverage(written, true) == 0.5
    assert shared_features(written) == pytest.approx(2 / 3)  # oak in 0, 2; red in 1, 2
    assert feature_coverage(written, [set()]) == 0


def test_shared_rare_words_make_texts_similar() -> None:
    frequencies = Counter({"soft": 90, "merino": 2, "oak": 3})
    index: Any = SimpleNamespace(
        catalog=SimpleNamespace(num_items=100), document_frequencies=frequencies
    )
    vectors = tfidf_encoder(index)(["soft merino", "merino", "soft oak", ""])
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.9
    assert similarity[0, 2] < 0.1
    assert similarity[3, 3] == 0
