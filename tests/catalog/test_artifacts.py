"""An artifact is whole or absent, and whatever was changed afterwards is noticed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog.artifacts import (
    artifact_hash,
    is_complete,
    open_artifact,
    request_hash,
    write_artifact,
)
from catalog.errors import VitrineError


def write(path: Path, content: str = "weights", kind: str = "encoder", **more) -> Path:
    with write_artifact(path, kind, **more) as staging:
        (staging / "model.safetensors").write_text(content)
        (staging / "history").mkdir()
        (staging / "history" / "config.json").write_text("{}")
    return path


def test_an_artifact_opens_with_all_it_was_given(tmp_path):
    split = {"kind": "temporal"}
    with write_artifact(
        tmp_path / "a",
        "encoder",
        config={"width": 8, "paths": (Path("x"),)},
        catalog="abc",
        split=split,
        metrics={"loss": 0.5},
    ) as staging:
        assert not (tmp_path / "a").exists()
        (staging / "w").write_text("1")
        assert Path(staging) == staging.path
        staging.metrics["share"] = np.float32(0.25)
        staging.metrics["lost"] = float("nan")
    manifest = open_artifact(tmp_path / "a", kind="encoder").manifest
    assert manifest["kind"] == "encoder"
    assert manifest["format_version"] == 3
    assert manifest["config"] == {"width": 8, "paths": ["x"]}
    assert manifest["catalog"] == "abc"
    assert manifest["split"] == split
    assert manifest["metrics"] == {"loss": 0.5, "share": 0.25, "lost": None}
    assert manifest["libraries"]["numpy"] == np.__version__
    assert list(manifest["checksums"]) == ["w"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_hash_is_of_the_content_and_not_of_the_time_or_place(tmp_path):
    first = open_artifact(write(tmp_path / "a")).hash
    assert open_artifact(write(tmp_path / "b", metrics={"loss": 1.0})).hash == first
    assert artifact_hash(tmp_path / "b") == first
    assert open_artifact(write(tmp_path / "c", "other")).hash != first


def test_a_flipped_byte_is_named(tmp_path):
    file = write(tmp_path / "a") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        VitrineError, match=r"a/model\.safetensors differs from its checksum [0-9a-f]{12}….*rerun"
    ):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize("name", ["model.safetensors", "history/config.json"])
def test_truncated_and_missing_files_are_named(tmp_path, name):
    file = write(tmp_path / "a") / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(VitrineError, match=rf"{name} differs"):
        open_artifact(tmp_path / "a")
    file.unlink()
    with pytest.raises(VitrineError, match=rf"{name} is missing"):
        open_artifact(tmp_path / "a")


def test_files_added_later_do_no_harm(tmp_path):
    (write(tmp_path / "a") / "notes.txt").write_text("mine")
    open_artifact(tmp_path / "a")


def edit(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_changed_manifest_is_detected(tmp_path):
    folder = write(tmp_path / "a")
    edit(folder, checksums={})
    with pytest.raises(VitrineError, match=r"manifest\.json was changed or damaged"):
        open_artifact(folder)
    for text in ("{", "[]", "{}", "3"):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(VitrineError, match=r"manifest\.json was changed or damaged"):
            open_artifact(folder)
        assert not is_complete(folder, "")


def test_a_newer_format_is_refused(tmp_path):
    edit(write(tmp_path / "a"), format_version=4)
    with pytest.raises(VitrineError, match=r"format version 4.*reads version 3"):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize("found", [1, 2])
@pytest.mark.parametrize(
    "kind", ["encoder", "vectors", "recommender", "text-generator", "showcase"]
)
def test_an_older_format_is_refused_in_one_line_and_made_again(
    kind: str, found: int, tmp_path: Path
) -> None:
    with write_artifact(tmp_path / "a", kind, request="same") as staging:
        (staging / "w").write_text("1")
    assert is_complete(tmp_path / "a", "same")
    edit(tmp_path / "a", format_version=found)
    with pytest.raises(
        VitrineError, match=rf"format version {found}, an older format.*rerun"
    ) as error:
        open_artifact(tmp_path / "a", kind)
    assert "\n" not in str(error.value)
    assert not is_complete(tmp_path / "a", "same"), "the stage runs again"
    with write_artifact(tmp_path / "a", kind) as staging:
        (staging / "w").write_text("2")
    assert open_artifact(tmp_path / "a").manifest["format_version"] == 3


def test_another_kind_and_no_artifact_are_refused(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(VitrineError, match=r"of kind encoder; give one of kind recommender"):
        open_artifact(tmp_path / "a", kind="recommender")
    with pytest.raises(VitrineError, match=r"b is not an artifact: it is not there"):
        open_artifact(tmp_path / "b")
    with pytest.raises(VitrineError, match=r"holds no manifest\.json"):
        open_artifact(tmp_path)


# Parents


def family(folder: Path) -> tuple[Path, Path]:
    base = write(folder / "base")
    return base, write(folder / "child", "adapter", "recommender", parents={"encoder": base})


def test_the_parent_is_found_also_after_both_have_moved(tmp_path):
    family(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "moved")
    child = open_artifact(tmp_path / "moved" / "child")
    assert child.parent("encoder") == tmp_path / "moved" / "base"


def test_a_replaced_parent_is_refused_with_both_hashes(tmp_path):
    base, child = family(tmp_path)
    before = artifact_hash(base)[:12]
    write(base, "retrained")
    after = artifact_hash(base)[:12]
    with pytest.raises(VitrineError, match=rf"encoder {before}…, but .*base is {after}…; pass the"):
        open_artifact(child)


def test_a_missing_parent_raises_only_on_access(tmp_path):
    base, child = family(tmp_path)
    base.rename(tmp_path / "away")
    opened = open_artifact(child)
    with pytest.raises(VitrineError, match=r"encoder .*base, which is gone"):
        opened.parent("encoder")
    with pytest.raises(VitrineError, match=r"not made from any vectors; its parents: encoder"):
        opened.parent("vectors")


def test_a_parent_must_be_an_artifact_before_work_begins(tmp_path):
    with (
        pytest.raises(VitrineError, match=r"nothing is not an artifact"),
        write_artifact(tmp_path / "a", "encoder", parents={"encoder": tmp_path / "nothing"}),
    ):
        pytest.fail("the body ran")


# Resuming


def test_a_finished_request_is_recognised(tmp_path):
    base = write(tmp_path / "base")
    asked = {"config": {"width": 8}, "parents": {"encoder": base}, "catalog": "abc"}
    path = write(tmp_path / "a", **asked)
    assert is_complete(path, request_hash("encoder", **asked))
    assert not is_complete(path, request_hash("vectors", **asked))
    assert not is_complete(path, request_hash("encoder", **asked | {"config": {"width": 9}}))
    assert not is_complete(path, request_hash("encoder", **asked | {"catalog": "abd"}))
    write(base, "retrained")
    assert not is_complete(path, request_hash("encoder", **asked))
    assert not is_complete(tmp_path / "b", request_hash("encoder"))


def test_an_artifact_that_lost_a_file_is_not_complete(tmp_path):
    path = write(tmp_path / "a", request="mine")
    assert is_complete(path, "mine")
    (path / "model.safetensors").unlink()
    assert not is_complete(path, "mine")


# Faults


def fail_half_way(path: Path) -> None:
    with write_artifact(path, "encoder") as staging:
        (staging / "half").write_text("half")
        _ = 1 / 0


def test_a_failing_stage_leaves_the_old_artifact_and_nothing_else(tmp_path):
    before = open_artifact(write(tmp_path / "a")).hash
    with pytest.raises(ZeroDivisionError):
        fail_half_way(tmp_path / "a")
    assert open_artifact(tmp_path / "a").hash == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_replacing_keeps_the_old_until_the_new_is_ready(tmp_path):
    path = write(tmp_path / "a", "old")
    with write_artifact(path, "encoder") as staging:
        (staging / "model.safetensors").write_text("new")
        assert (open_artifact(path).path / "model.safetensors").read_text() == "old"
    assert (open_artifact(path).path / "model.safetensors").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, signal, sys
from catalog.artifacts import write_artifact
with write_artifact(sys.argv[1], "encoder") as staging:
    (staging / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_swept_by_the_next(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "a")], cwd=root, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.partial-")
    assert not is_complete(tmp_path / "a", "")
    write(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_living_writer_is_left_alone(tmp_path):
    other = tmp_path / f".a.partial-{os.getppid()}"
    other.mkdir()
    write(tmp_path / "a")
    assert other.exists()


def test_a_replacement_killed_half_way_is_undone(tmp_path):
    folder = write(tmp_path / "a", "old")
    folder.rename(tmp_path / ".a.replaced-999999999")
    with write_artifact(folder, "encoder"):
        assert (open_artifact(folder).path / "model.safetensors").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years")
    with pytest.raises(VitrineError, match=r"no artifact.*kept at .*a\.1: move it"):
        write(tmp_path / "a")
    assert (tmp_path / "a" / "thesis.tex").read_text() == "years"
    open_artifact(tmp_path / "a.1", kind="encoder")


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "a").mkdir()
    open_artifact(write(tmp_path / "a"))
