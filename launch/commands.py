"""What each `vitrine` command does: settings in, one call to a room, the path of what it made.

The imports that bring torch are inside the functions, so that a command's `--help` is quick.
"""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.config import CatalogConfig, PositiveInt, Seed
from catalog.errors import VitrineError
from finetune.config import ArmConfig, FinetuneConfig, IndexConfig, Model
from generate.image.config import DrawConfig, ImageBulkConfig, ImageConfig, ImageScoreConfig
from generate.text.config import BulkConfig, ScoreConfig, TextConfig, WriteConfig
from launch.compare import CompareConfig
from launch.pipeline import PipelineConfig, WorldConfig
from pretrain.config import EmbedConfig, PretrainConfig


@dataclass(frozen=True)
class DemoOptions:
    fast: bool = False
    """A smaller shop and shorter training, to see the way in a minute or two."""
    output: str = ""
    """Folder for everything that is made; runs/demo, or runs/demo-fast with --fast."""
    seed: Seed = 0
    """The shop and its people are a function of it."""
    open: bool = False
    """Open the page in a browser at the end."""

    @property
    def config(self) -> str:
        return "pipeline/demo-fast" if self.fast else "pipeline/demo"

    @property
    def folder(self) -> Path:
        return Path(self.output or ("runs/demo-fast" if self.fast else "runs/demo"))


def demo(options: DemoOptions, settings: PipelineConfig) -> None:
    from launch.pipeline import run_pipeline
    from launch.trainer import build_trainer

    world = replace(settings.world or WorldConfig(), seed=options.seed)
    report = run_pipeline(replace(settings, world=world), options.folder, build_trainer)
    _made(report)
    if options.open:
        import webbrowser

        webbrowser.open(report.resolve().as_uri())


@dataclass(frozen=True)
class RunOptions:
    config: str
    """A YAML file, or one that comes with Vitrine, by its name."""
    output: str = "runs/pipeline"
    """Folder for everything that is made."""


def run(options: RunOptions, settings: PipelineConfig) -> None:
    from launch.pipeline import run_pipeline
    from launch.trainer import build_trainer

    _made(run_pipeline(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class PretrainOptions:
    output: str = "runs/encoder"
    """Folder of the encoder that is made."""


def pretrain(options: PretrainOptions, settings: PretrainConfig) -> None:
    from launch.trainer import build_trainer
    from pretrain.run import run_pretraining

    _made(run_pretraining(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class EmbedOptions:
    output: str = "runs/vectors"
    """Folder of the vectors that are made."""


def embed(options: EmbedOptions, settings: EmbedConfig) -> None:
    from pretrain.embed import run_embedding

    _made(run_embedding(settings, Path(options.output)))


@dataclass(frozen=True)
class FinetuneOptions:
    output: str = "runs/recommender"
    """Folder of the recommender that is made."""
    model: Model = "vitrine"
    """A recommender of ours, by dense vectors (vitrine) or by semantic ids, or a baseline."""


def finetune(options: FinetuneOptions, settings: FinetuneConfig) -> None:
    from launch.pipeline import recommender_stage
    from launch.trainer import build_trainer

    arm, folder = ArmConfig(model=options.model), Path(options.output)
    _made(recommender_stage(options.model, arm, settings, folder, build_trainer).run())


@dataclass(frozen=True)
class ExtendOptions:
    recommender: str
    """Folder of a recommender artifact."""
    catalog: str = ""
    """Folder of the newer catalog; empty: the one it learned from, as it is now."""
    encoder: str = ""
    """Folder of its encoder, where that is no longer where it was."""
    output: str = "runs/extended"
    """Folder of the recommender that is made."""


def extend(options: ExtendOptions) -> None:
    from finetune.extension import extend as extend_recommender

    found = extend_recommender(
        options.recommender, options.output, options.catalog, options.encoder or None
    )
    told = f"{found.kept:,} items as they were, {found.added:,} added, {found.removed:,} removed"
    if found.dropped:
        told += f"; {found.dropped:,} interactions with items that are gone were left out"
    print(told, file=sys.stderr)
    _made(found.path)


@dataclass(frozen=True)
class CompareOptions:
    output: str = "runs/compare"
    """Folder of the arms and of the report."""


def compare(options: CompareOptions, settings: CompareConfig) -> None:
    from launch.compare import run_comparison
    from launch.trainer import build_trainer

    _made(run_comparison(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class EvaluateOptions:
    recommender: str
    """Folder of a recommender artifact."""
    part: str = "test"
    """Targets to rank: test or validation."""
    output: str = ""
    """A JSON file for the figures; empty: they are only printed."""


def evaluate(options: EvaluateOptions) -> None:
    from finetune.recommendations import measure

    table = measure(options.recommender, options.part)
    if options.output:
        Path(options.output).write_text(json.dumps(table, indent=1) + "\n", encoding="utf8")
    groups: dict[str, list[str]] = {}
    for name in table:
        group, _, metric = name.rpartition("/")
        groups.setdefault(group, []).append(metric)
    for group, metrics in groups.items():
        print(group or "all")
        for metric in metrics:
            value = table[f"{group}/{metric}" if group else metric]
            whole = metric in ("people", "targets")
            print(f"  {metric:18} {value:10,.0f}" if whole else f"  {metric:18} {value:10.4f}")


@dataclass(frozen=True)
class EvaluateTextOptions:
    generator: str
    """Folder of a text-generator artifact."""
    output: str = "runs/text-scores"
    """Folder of the scores (scores.json) and the samples (samples.md)."""


def evaluate_text(options: EvaluateTextOptions, settings: ScoreConfig) -> None:
    from generate.text.report import describe_scores, run_text_scores

    output = run_text_scores(Path(options.generator), settings, Path(options.output))
    print(describe_scores(json.loads((output / "scores.json").read_text())))
    _made(output / "samples.md")


@dataclass(frozen=True)
class EvaluateImageOptions:
    generator: str
    """Folder of an image-generator artifact."""
    output: str = "runs/image-scores"
    """Folder of the scores (scores.json) and the pictures side by side (contact-sheet.png)."""


def evaluate_image(options: EvaluateImageOptions, settings: ImageScoreConfig) -> None:
    from generate.image.report import SCORES_FILE, SHEET_FILE, describe_scores, run_image_scores

    output = run_image_scores(Path(options.generator), settings, Path(options.output))
    print(describe_scores(json.loads((output / SCORES_FILE).read_text())))
    _made(output / SHEET_FILE)


@dataclass(frozen=True)
class DomainsOptions:
    store: str = "runs/domains"
    """Folder that remembers them."""


@dataclass(frozen=True)
class DomainOptions:
    name: str
    """What the domain is called."""
    store: str = "runs/domains"
    """Folder that remembers them."""


@dataclass(frozen=True)
class AddDomainOptions:
    name: str
    """What the domain is to be called."""
    recommender: str
    """Folder of a recommender artifact, fitted with LoRA."""
    store: str = "runs/domains"
    """Folder that remembers them."""


def domains_add(options: AddDomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store, new=True)
    store.add(options.name, options.recommender)
    store.write()


def domains_list(options: DomainsOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    print(f"base {store.encoder}")
    for name, folder in store.recommenders.items():
        print(f"{'*' if name == store.in_use else ' '} {name}  {folder}")


def domains_use(options: DomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    store.use(options.name)
    store.write()


def domains_remove(options: DomainOptions) -> None:
    from finetune.domains import DomainStore

    store = DomainStore.read(options.store)
    store.remove(options.name)
    store.write()


@dataclass(frozen=True)
class RecommendOptions:
    recommender: str
    """Folder of a recommender artifact, or of several domains (`vitrine domains`)."""
    user: str | None = None
    """Whom to recommend to, by id."""
    history: str | None = None
    """Or somebody unknown, by what they have: item ids with commas between."""
    k: PositiveInt = 10
    """Length of the list."""
    domain: str = ""
    """Of several domains: which; empty: the one in use."""
    index: str = ""
    """Folder of an index of its items (`vitrine index`); empty: every item is scored."""


def recommend(options: RecommendOptions) -> None:
    from finetune.domains import STORE_FILE, DomainStore
    from finetune.recommendations import recommend as recommend_items

    folder = options.recommender
    if options.domain or (Path(folder) / STORE_FILE).exists():
        folder = DomainStore.read(folder).path_of(options.domain)
    found = recommend_items(
        folder,
        user=options.user,
        history=options.history,
        k=options.k,
        index=options.index or None,
    )
    if found.by == "popularity":
        print(
            "no history to go by: these are the items taken most often in training",
            file=sys.stderr,
        )
    print(f"by {found.by}")
    rows = zip(found.scores, found.item_ids, found.titles, strict=True)
    for place, (score, item, title) in enumerate(rows, 1):
        print(f"{place:4}  {score:9.4f}  {item}  {title}")


@dataclass(frozen=True)
class IndexOptions:
    recommender: str
    """Folder of a recommender artifact."""
    encoder: str = ""
    """Folder of its encoder, where that is no longer where it was."""
    output: str = "runs/index"
    """Folder of the index that is made."""


def index(options: IndexOptions, settings: IndexConfig) -> None:
    from catalog.artifacts import read_manifest
    from finetune.index import run_indexing

    output = Path(options.output)
    run_indexing(settings, options.recommender, output, options.encoder or None)
    told = read_manifest(output)["metrics"]
    print(
        f"recall@10 {told['recall@10']:.4f} against exact search, over {told['people']:,} people; "
        f"{told['search_ms']} ms each, exact {told['exact_ms']} ms",
        file=sys.stderr,
    )
    _made(output)


@dataclass(frozen=True)
class TrainTextOptions:
    output: str = "runs/text"
    """Folder of the text generator that is made."""


def train_text(options: TrainTextOptions, settings: TextConfig) -> None:
    from generate.text.run import run_text_generator
    from launch.trainer import build_trainer

    _made(run_text_generator(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class TrainImageOptions:
    output: str = "runs/image"
    """Folder of the image generator that is made."""


def train_image(options: TrainImageOptions, settings: ImageConfig) -> None:
    from generate.image.run import run_image_generator
    from launch.trainer import build_trainer

    _made(run_image_generator(settings, Path(options.output), build_trainer))


@dataclass(frozen=True)
class GenerateTextOptions:
    generator: str
    """Folder of a text-generator artifact."""
    user: str | None = None
    """For whom, by id; nobody in particular without."""
    item: str | None = None
    """About what, by id."""
    task: str = "description"
    """What to write."""
    recommender: str = ""
    """One extended from the recommender it was trained with (`vitrine extend`), to know its items."""
    all_users: bool = False
    """For everybody, into a folder; goes on where it was, and shares the work under torchrun."""
    users: str = ""
    """With --all_users: only for those in this file, one id on each line."""
    items: str = "top:3"
    """With --all_users: each person's so many best items, or ids with commas between."""
    output: str = "runs/texts"
    """With --all_users: folder of the texts that are written."""


def generate_text(options: GenerateTextOptions, settings: WriteConfig) -> None:
    if options.all_users:
        from generate.text.bulk import write_for_all

        config = BulkConfig(
            generator=options.generator,
            recommender=options.recommender,
            task=options.task,
            items=options.items,
            users=options.users,
            write=settings,
        )
        _made(write_for_all(config, Path(options.output)))
        return
    from generate.text import open_writer

    writer = open_writer(options.generator, recommender=options.recommender, engine=settings.engine)
    for piece in writer.stream(options.user, options.item, options.task, settings):
        print(piece, end="", flush=True)
    print()


@dataclass(frozen=True)
class GenerateImageOptions:
    generator: str
    """Folder of an image-generator artifact."""
    user: str | None = None
    """For whom, by id; nobody in particular without."""
    item: str | None = None
    """Of what, by id."""
    output: str = "runs/picture.png"
    """The picture's file."""
    recommender: str = ""
    """One extended from the recommender it was trained with (`vitrine extend`), to know its items."""
    all_users: bool = False
    """For everybody, into a folder; goes on where it was, and shares the work under torchrun."""
    users: str = ""
    """With --all_users: only for those in this file, one id on each line."""
    items: str = "top:3"
    """With --all_users: each person's so many best items, or ids with commas between."""


def generate_image(options: GenerateImageOptions, settings: DrawConfig) -> None:
    if options.all_users:
        from generate.image.bulk import draw_for_all

        config = ImageBulkConfig(
            generator=options.generator,
            recommender=options.recommender,
            items=options.items,
            users=options.users,
            draw=settings,
        )
        _made(draw_for_all(config, Path(options.output)))
        return
    from generate.image import draw

    draw(
        options.generator,
        user=options.user,
        item=options.item,
        config=settings,
        output=options.output,
        recommender=options.recommender,
    )
    _made(Path(options.output))


@dataclass(frozen=True)
class VerifyOptions:
    file: str
    """A PNG or JPEG."""
    signer: str = ""
    """Fingerprint of the key that ought to have signed it; this machine's own without."""


def verify(options: VerifyOptions) -> None:
    from generate.provenance import fingerprint
    from generate.provenance import verify as verdict_on

    verdict = verdict_on(options.file)
    if not verdict.signed:
        raise VitrineError(f"{options.file} holds no signature of Vitrine's.")
    if not verdict.untouched:
        raise VitrineError(f"{options.file} was changed since it was signed.")
    wanted = options.signer or fingerprint()
    if verdict.signer != wanted:
        raise VitrineError(
            f"{options.file} was signed by the key {verdict.signer}, not by {wanted}; if you know that "
            f"key, say so with --signer {verdict.signer}."
        )
    print(f"signed by {verdict.signer}, untouched")
    for name, value in verdict.about.items():
        print(f"  {name}: {value if isinstance(value, str) else json.dumps(value)}")


@dataclass(frozen=True)
class ForgetOptions:
    folder: str
    """Below which artifacts are looked for."""
    user: str
    """The user's id."""
    key: str = ""
    """Files of user keys that were in use elsewhere or earlier, with commas between; the key in use, and
    those retired from it (`vitrine rotate-key`), are known."""


def forget(options: ForgetOptions) -> None:
    from generate.forget import forget as remove

    keys = [name for part in options.key.split(",") if (name := part.strip())]
    done = remove(options.user, Path(options.folder), keys)
    for file, rows in done.rows.items():
        print(f"{file}: {rows:,} rows removed")
    for path in (*done.files, *done.caches):
        print(f"{path}: removed")
    if not (done.rows or done.files or done.caches):
        print(f"nothing below {options.folder} was made for {options.user}")
    for place in done.learned:
        print(f"{place}: its training may have seen what they did; train it again without")
    for file in done.left:
        print(f"{file}: holds their id and was not made for them; remove it there yourself")


@dataclass(frozen=True)
class RotateKeyOptions:
    """Nothing to choose: the file is the one that VITRINE_USER_KEY names."""


def rotate_key(options: RotateKeyOptions) -> None:
    from generate.pseudonyms import key_file, rotate_user_key

    print(f"{key_file()}: users are named by {rotate_user_key().fingerprint} from now on")


@dataclass(frozen=True)
class CatalogCheckOptions:
    folder: str
    """The catalog's folder."""


def catalog_check(options: CatalogCheckOptions, settings: CatalogConfig) -> None:
    from catalog.check import check_catalog, format_report

    print(format_report(check_catalog(replace(settings, path=options.folder))))


@dataclass(frozen=True)
class CatalogDemoOptions:
    folder: str
    """Where the demo world goes."""


def catalog_demo(options: CatalogDemoOptions, settings: WorldConfig) -> None:
    from catalog.demo import build_demo_world

    folder = Path(options.folder)
    build_demo_world(
        folder,
        seed=settings.seed,
        num_items=settings.num_items,
        num_people=settings.num_people,
    )
    _made(folder)


def _made(path: Path) -> None:
    """Says where it is, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        print(path)
