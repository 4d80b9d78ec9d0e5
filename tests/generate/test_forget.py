"""Who is forgotten is in no byte of what was made, whichever key named them; what others have stays."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalog.artifacts import open_artifact, write_artifact
from catalog.cache import cache_folder
from catalog.catalog import load_catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.errors import VitrineError
from generate import batch_job
from generate.config import ShowcaseConfig
from generate.forget import ErasureReport, forget
from generate.image import run_image_generator, sample_image
from generate.image.batch_job import run_image_batch_job
from generate.image.config import (
    CodecConfig,
    DenoiserConfig,
    ImageBatchConfig,
    ImageConfig,
    ImageScoreConfig,
    SamplingConfig,
)
from generate.image.report import run_image_scores
from generate.provenance import verify
from generate.pseudonyms import known_keys, pseudonymize, rotate_user_key
from generate.showcase import run_showcase
from generate.text.batch_job import write_texts
from generate.text.config import TextBatchConfig, TextConfig, TextScoreConfig, WriteConfig
from generate.text.report import run_text_scores
from generate.text.run import run_text_generator
from pretrain.config import TrainerConfig
from tests.generate.text_stage import StageRanker, build_trainer

GONE = "zoë & co"
USERS = [GONE, *(f"u{number}" for number in range(5))]
TITLES = [f"Brask {word} Quillon" for word in ("Umber", "Sorrel", "Teal", "Ochre", "Rust")]
"""Of items that only GONE took."""
TRAINER = TrainerConfig(max_steps=1, progress=False, accelerator="cpu")
DRAW = SamplingConfig(steps=1, reject_near_copies=False)


@dataclass
class Made:
    runs: Path
    shop: Path
    pictures: list[bytes]
    """Files of pictures made for GONE, and of those they took."""


def read_out(folder: Path) -> dict[Path, bytes]:
    """Every file's bytes, and after them what its compression and escapes hide."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if file.suffix == ".parquet":
            for row in pq.read_table(file).to_pylist():
                picture = row.pop("picture", None) or {"bytes": b""}
                content += repr(row).encode() + picture["bytes"]
        if file.suffix == ".json":
            content += json.dumps(json.loads(content), ensure_ascii=False).encode()
        found[file] = content
    return found


def left_of(made: Made) -> dict[str, list[str]]:
    """Where anything of GONE is still to be found."""
    names = [GONE, json.dumps(GONE)[1:-1], *(key.pseudonym(GONE) for key in known_keys())]
    needles = [*(name.encode() for name in [*names, *TITLES]), *made.pictures]
    return {
        str(file): [repr(needle[:40]) for needle in needles if needle in content]
        for file, content in read_out(made.runs).items()
        if any(needle in content for needle in needles)
    }


def write_shop(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["item_id,title,description,image"]
    for item in range(12):
        title = TITLES[item] if item < 5 else f"Thing {item}"
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{item}.png")
        rows.append(f"i{item},{title},a {'soft' if item % 2 else 'bold'} thing,{item}.png")
    (folder / "items.csv").write_text("\n".join(rows) + "\n")
    taken = [
        f"{user},i{item},{step}"
        for place, user in enumerate(USERS)
        for step, item in enumerate(range(5) if place == 0 else range(4 + place, 4 + place + 3))
    ]
    (folder / "interactions.csv").write_text(
        "\n".join(["user_id,item_id,timestamp", *taken]) + "\n"
    )
    return folder


@pytest.fixture
def made(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A copy of everything, and the pictures that are GONE's in it."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VITRINE_USER_KEY", str(tmp_path / "users.key"))
    runs = tmp_path / "runs"
    pictures = [(tmp_path / "shop" / f"{item}.png").read_bytes() for item in range(5)]
    pictures += [(runs / name).read_bytes() for name in ("one.png", "two.png")]
    mine = {key.pseudonym(GONE) for key in known_keys()}
    for file in (runs / "images" / "images.parquet", *runs.glob("broken.work/*.parquet")):
        rows = pq.read_table(file).to_pylist()
        pictures += [row["image"]["bytes"] for row in rows if row["user"] in mine]
    story = json.loads((runs / "showcase" / "showcase.json").read_text())["users"]
    (place,) = [place for place, one in enumerate(story) if one["user"] in mine]
    pictures += [file.read_bytes() for file in (runs / "showcase").glob(f"{place:03}-*.png")]
    return Made(runs, tmp_path / "shop", pictures)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact of each kind, the first ones under a key that was retired since."""
    folder = tmp_path_factory.mktemp("everything")
    with pytest.MonkeyPatch.context() as patched:
        make_everything(folder, patched)
    return folder


def make_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VITRINE_USER_KEY", str(tmp_path / "users.key"))
    for module in ("text.run", "image.run", "ranker", "showcase"):
        monkeypatch.setattr(f"generate.{module}.load_ranker", lambda *_, **__: StageRanker())
    monkeypatch.setattr(batch_job, "USERS_PER_PART", 2)
    runs, models = tmp_path / "runs", tmp_path / "models"
    with write_artifact(models / "recommender", "recommender") as staging:
        (staging / "weights").write_text("none")
    catalog = CatalogConfig(path=str(write_shop(tmp_path / "shop")))
    common = {
        "recommender": str(models / "recommender"),
        "catalog": catalog,
        "split": SplitConfig(kind="leave-one-out"),
    }
    words = TextConfig(
        **common,
        config={"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96},
        vocab_size=300,
        max_tokens=8,
        batch_size=4,
        trainer=TRAINER,
    )
    text = run_text_generator(words, models / "text", build_trainer)
    looks = ImageConfig(
        **common,
        image_size=32,
        codec=CodecConfig(patch_size=16, channels=12),
        denoiser=DenoiserConfig(width=16, layers=1, heads=2, user_tokens=1, item_tokens=1),
        batch_size=4,
        sampling=DRAW,
        trainer=TRAINER,
    )
    image = run_image_generator(looks, models / "image", build_trainer)
    write = WriteConfig(temperature=1.5, max_tokens=8)
    write_texts(TextBatchConfig(str(text), items="top:2", write=write), runs / "texts")
    run_image_batch_job(ImageBatchConfig(str(image), items="i0,i7", sampling=DRAW), runs / "images")
    sample_image(image, user=GONE, item="i3", output=runs / "one.png")
    broken = ImageBatchConfig(str(image), items="i1", sampling=DRAW)
    with monkeypatch.context() as patched:
        patched.setattr(batch_job, "write_artifact", _stop)
        with pytest.raises(KeyboardInterrupt):
            run_image_batch_job(broken, runs / "broken")
    rotate_user_key()
    sample_image(image, user=GONE, item="i4", output=runs / "two.png")
    sample_image(image, user="u1", item="i4", output=runs / "other.png")
    scores = TextScoreConfig(num_users=6, num_generated=6, num_sample_users=6, write=write)
    run_text_scores(text, scores, runs / "text-scores")
    shown = ImageScoreConfig(
        num_users=6, num_contact_sheet_users=6, classifier_steps=1, sampling=DRAW
    )
    run_image_scores(image, shown, runs / "image-scores")
    everyone = ShowcaseConfig(
        text=str(text), image=str(image), num_users=6, num_scored_users=6, **common
    )
    run_showcase(everyone, runs / "showcase")
    table = {"arm": ["lora"] * 6, "user_id": USERS, "rank": range(6)}
    pq.write_table(pa.table(table), runs / "targets.parquet")
    (runs / "notes.txt").write_text(f"write to {GONE}\n")


def _stop(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


def test_an_erased_user_is_in_no_byte_also_under_a_rotated_key(made: Made) -> None:
    before = left_of(made)
    assert len({Path(file).parent.name for file in before}) >= 6, before
    assert len(made.pictures) == 5 + 2 + 2 + 1 + 2 * 3
    others = {user: pseudonymize(user) for user in USERS[1:]}
    done = forget(GONE, made.runs)
    assert done.mentions == [made.runs / "notes.txt"]
    done.mentions[0].unlink()
    assert left_of(made) == {}
    kept = [path.name for path in (cache_folder() / "catalogs").iterdir()]
    assert all(name.startswith("items-") for name in kept)  # no histories
    # Everything that is left can be opened, is signed, and is the others'.
    for kind in ("texts", "images", "showcase", "text-scores", "image-scores"):
        open_artifact(made.runs / kind, kind=kind)
    assert (made.runs / "other.png").exists()
    found = json.loads((made.runs / "showcase" / "showcase.json").read_text())["users"]
    assert {one["user"] for one in found} == set(others.values())
    for one in found:
        for generated in one["generated"]:
            files = {
                file.name[-8:] for file in (made.runs / "showcase").glob(f"{generated['files']}-*")
            }
            assert len(files) == (3 if one["swapped_user"] else 2)
            assert bool(generated["texts"]["swapped"]) <= bool(one["swapped_user"])
    assert len(pq.read_table(made.runs / "texts" / "texts.parquet")) == 5 * 2
    assert len(pq.read_table(made.runs / "targets.parquet")) == 5
    again = forget(GONE, made.runs)
    assert again == ErasureReport()


def test_every_generated_image_verifies(made: Made, tmp_path: Path) -> None:
    files = [file for file in made.runs.rglob("*.png") if file.parent.name != "judge"]
    assert {"contact-sheet.png", "one.png", "000-0-own.png"} <= {file.name for file in files}
    for file in (made.runs / "images" / "images.parquet", *made.runs.glob("*.work/*.parquet")):
        for number, row in enumerate(pq.read_table(file).to_pylist()):
            files.append(tmp_path / f"{file.stem}-{number}.png")
            files[-1].write_bytes(row["image"]["bytes"])
    assert len(files) > 6 * 6 + 12
    for file in files:
        assert verify(file).is_intact, file
        assert verify(file).metadata["DigitalSourceType"]


def test_a_missing_key_is_named_and_nothing_is_removed_without_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = shutil.move(tmp_path / "users.key", tmp_path / "retired.key")
    monkeypatch.setenv("VITRINE_USER_KEY", str(tmp_path / "another.key"))
    needed = open_artifact(made.runs / "texts").manifest["user_key"]
    before = read_out(made.runs)
    with pytest.raises(VitrineError, match=r"names users by the key [0-9a-f]{16}, .*--key FILE"):
        forget(GONE, made.runs)
    with pytest.raises(VitrineError, match=needed):
        forget(GONE, made.runs / "texts")
    assert read_out(made.runs) == before
    done = forget(GONE, made.runs, [ring])
    assert len(done.rows) == 6
    monkeypatch.setenv("VITRINE_USER_KEY", str(ring))
    (made.runs / "notes.txt").unlink()
    assert left_of(made) == {}


def test_an_artifact_under_an_unknown_key_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    with write_artifact(
        tmp_path / "runs" / "texts", "texts", user_key="0123456789abcdef"
    ) as staging:
        pq.write_table(pa.table({"user": [pseudonymize("a")]}), staging / "texts.parquet")
    with pytest.raises(
        VitrineError, match=r"users by the key 0123456789abcdef, .*--key FILE"
    ) as one:
        forget("a", tmp_path / "runs")
    assert "\n" not in str(one.value)


def test_an_artifact_of_an_older_format_stops_the_erasure_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "texts"
    with write_artifact(folder, "texts") as staging:
        pq.write_table(pa.table({"person": [pseudonymize("a")]}), staging / "texts.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(
        VitrineError, match=r"texts is of an older format.*nothing was removed"
    ) as one:
        forget("a", tmp_path / "runs")
    assert "\n" not in str(one.value)
    assert (folder / "texts.parquet").exists()


def test_rows_without_a_stored_key_need_the_signing_key_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from generate.provenance import fingerprint, key_file

    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VITRINE_KEY", str(tmp_path / "key.pem"))
    assert fingerprint()
    (old,) = [key for key in known_keys([key_file()]) if key not in known_keys()]
    with write_artifact(tmp_path / "runs" / "texts", "texts") as staging:
        names = [old.pseudonym(user) for user in ("a", "b")]
        pq.write_table(pa.table({"user": names}), staging / "texts.parquet")
    with pytest.raises(
        VitrineError, match="does not say which key names users in it; give the sign"
    ):
        forget("a", tmp_path / "runs")
    done = forget("a", tmp_path / "runs", [key_file()])
    assert list(done.rows.values()) == [1]
    assert (
        pq.read_table(tmp_path / "runs" / "texts" / "texts.parquet")["user"].to_pylist()
        == names[1:]
    )


def test_an_erased_users_interactions_leave_the_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VITRINE_CACHE", str(tmp_path / "cache"))
    load_catalog(CatalogConfig(path=str(write_shop(tmp_path / "shop"))))
    (tmp_path / "runs").mkdir()
    assert forget("u9", tmp_path / "runs").caches == []
    assert len(forget("u3", tmp_path / "runs").caches) == 1
