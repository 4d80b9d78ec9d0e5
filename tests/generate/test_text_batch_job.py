"""Batch generation of texts for all users."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.artifacts import open_artifact
from catalog.errors import VitrineError
from generate import batch_job
from generate.pseudonyms import pseudonymize
from generate.text import batch_job as text_batch_job
from generate.text.batch_job import read_texts, write_texts
from generate.text.config import TextBatchConfig, TextConfig, WriteConfig
from generate.text.faithfulness import Claim
from generate.text.run import run_text_generator
from generate.text.writer import load_writer
from tests.generate.text_stage import build_trainer


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return read_texts(folder).to_pylist()


def test_texts_of_a_batch_job_equal_single_requests_and_resume_where_it_stopped(
    text_config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run_text_generator(text_config, tmp_path / "text", build_trainer)
    monkeypatch.setattr(batch_job, "USERS_PER_PART", 2)
    settings = TextBatchConfig(
        generator=str(output), items="top:3", write=WriteConfig(temperature=1.5)
    )
    whole = rows_of(write_texts(settings, tmp_path / "whole"))
    assert [(row["user"], row["rank"]) for row in whole] == [
        (pseudonymize(f"p{user}"), rank) for user in range(6) for rank in range(3)
    ]
    writer = load_writer(output)
    for row in whole[4:6]:
        again = WriteConfig(temperature=1.5, seed=row["seed"])
        assert writer.write("p1", row["item_id"], config=again)[0].text == row["text"]
    ranked = [item for item, _ in writer.ranker.rank(writer.catalog.interactions.history(4), 3)]
    assert [row["item_id"] for row in whole[12:15]] == [f"i{item}" for item in ranked]

    write_part, written = text_batch_job.write_part, []

    def stop_after_two(writer: Any, users: np.ndarray, *rest: Any) -> list[dict[str, Any]]:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(users.tolist())
        return write_part(writer, users, *rest)

    monkeypatch.setattr(text_batch_job, "write_part", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        write_texts(settings, tmp_path / "broken")
    written.clear()
    assert not (tmp_path / "broken").exists()
    broken = write_texts(settings, tmp_path / "broken")
    assert written == [[4, 5]]
    assert rows_of(broken) == whole
    assert not (tmp_path / "broken.work").exists()
    metrics = open_artifact(broken, "texts").manifest["metrics"]
    assert metrics.items() >= {"users": 6, "texts": 18, "from_catalog": 0}.items()


def test_a_batch_job_for_listed_users_and_items_verifies_claims(
    text_config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run_text_generator(text_config, tmp_path / "text", build_trainer)
    (tmp_path / "some.txt").write_text("p3\n\np1\n")
    settings = TextBatchConfig(
        generator=str(output),
        items="i7, i2",
        users=str(tmp_path / "some.txt"),
        write=WriteConfig(verify_claims=True, max_attempts=1),
    )
    false = [Claim("x", "unsupported", "word")]
    monkeypatch.setattr("generate.text.faithfulness.ClaimChecker.check", lambda *_: false)
    rows = rows_of(write_texts(settings, tmp_path / "texts"))
    assert [(r["user"], r["item_id"]) for r in rows] == [
        (pseudonymize(user), item) for user in ("p3", "p1") for item in ("i7", "i2")
    ]
    assert all(row["from_catalog"] for row in rows)
    assert [row["text"] for row in rows[:2]] == ["Thing 7. a soft thing", "Thing 2. a bold thing"]
    for wrong, message in (
        ({"items": "top:0"}, "top takes a number from 1 on"),
        ({"items": ","}, "items is empty"),
        ({"items": "i99"}, "no item 'i99'"),
        ({"users": "nobody.txt"}, "is no file"),
        ({"task": "title"}, "was not trained on the task 'title'; it writes description, review"),
    ):
        with pytest.raises(VitrineError, match=message):
            write_texts(replace(settings, **wrong), tmp_path / "wrong")
        assert not (tmp_path / "wrong.work").exists()
