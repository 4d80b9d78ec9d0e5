"""Lists the files that a record's figures depend on, and hashes what in them can change a figure.

Of a Python file the syntax tree is hashed: comments, layout, docstrings, and the prose and goal that a
script passes to `write_record` may change without making a record stale. Other files are hashed in full.
"""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROSE = ("claim", "note", "goal", "sources")
"""Arguments of `write_record` that change no figure; goals are computed from stored figures."""

RANKING = [
    "catalog/cut_times.py",
    "catalog/splits.py",
    "finetune/evaluate.py",
    "finetune/metrics.py",
    "finetune/statistics.py",
    "finetune/tie_break.py",
    "pretrain/inner_products.py",
]
FINETUNING = [
    *RANKING,
    "finetune/cache.py",
    "finetune/data.py",
    "finetune/fit.py",
    "finetune/fitting.py",
    "finetune/item_content.py",
    "finetune/losses.py",
    "finetune/module.py",
    "finetune/recommender.py",
    "finetune/run.py",
    "finetune/selection.py",
    "pretrain/blocks.py",
    "pretrain/sequence_encoder.py",
    "pretrain/lora.py",
    "pretrain/optim.py",
]
PRETRAINING = [
    "pretrain/encoder.py",
    "pretrain/module.py",
    "pretrain/objectives/*.py",
    "pretrain/optim.py",
    "pretrain/packing.py",
    "pretrain/projection_init.py",
    "pretrain/towers/*.py",
]
COMPARISON = [
    *FINETUNING,
    *PRETRAINING,
    "launch/compare/run.py",
    "launch/compare/contrasts.py",
    "launch/compare/convergence.py",
]
CHECKPOINTS = ["catalog/checksums.py", "launch/checkpoints.py", "launch/trainer.py"]
IMAGES = [
    "generate/conditioning.py",
    "generate/image/codec.py",
    "generate/image/data.py",
    "generate/image/denoiser.py",
    "generate/image/guidance.py",
    "generate/image/latent_cache.py",
    "generate/image/module.py",
    "generate/image/pipeline.py",
    "generate/image/resolution_buckets.py",
    "generate/image/sampler.py",
    "generate/image/solvers.py",
    "generate/next_items.py",
    "generate/purchase_states.py",
]
IMAGE_SCORES = [
    "generate/image/attribute_classifier.py",
    "generate/image/best_of_n.py",
    "generate/image/encoder_metrics.py",
    "generate/image/feature_metrics.py",
    "generate/image/image_encoder.py",
    "generate/image/score.py",
]
TEXTS = [
    "generate/conditioning.py",
    "generate/next_items.py",
    "generate/requests.py",
    "generate/text/clean.py",
    "generate/text/data.py",
    "generate/text/decoding.py",
    "generate/text/model.py",
    "generate/text/module.py",
    "generate/text/prompts.py",
    "generate/text/vocabulary_filter.py",
    "generate/text/writer.py",
]
TEXT_SCORES = [
    "generate/attributes.py",
    "generate/evaluation/*.py",
    "generate/text/evidence.py",
    "generate/text/faithfulness.py",
    "generate/text/judge.py",
    "generate/text/keywords.py",
    "generate/text/lexicon.*",
    "generate/text/likelihood.py",
    "generate/text/negation.py",
    "generate/text/quantities.py",
    "generate/text/score.py",
    "generate/text/similarity.py",
    "generate/text/text_metrics.py",
    "generate/text/verification.py",
]


def source_hash(sources: Iterable[str], root: Path) -> str:
    """Hash of all files under `root` that match one of the globs: 16 hexadecimal digits.

    Raises ValueError where a glob matches no file, so that a misspelt one is noticed.
    """
    digest = hashlib.sha256()
    for path in matching(sources, root):
        digest.update(f"{path.relative_to(root).as_posix()}\n{_content(path)}\n".encode())
    return digest.hexdigest()[:16]


def matching(sources: Iterable[str], root: Path) -> list[Path]:
    """The files under `root` that match one of the globs, sorted, each once."""
    found: set[Path] = set()
    for pattern in sources:
        files = {path for path in root.glob(pattern) if path.is_file()}
        if not files:
            raise ValueError(
                f"source {pattern!r} matches no file; name a file or glob of the project"
            )
        found |= files
    return sorted(found)


def changed(sources: Iterable[str], stored: str, root: Path) -> bool:
    """Whether the files differ from those that were hashed, or one of them is gone."""
    try:
        return source_hash(sources, root) != stored
    except ValueError:
        return True


def script_of(command: str) -> str:
    """The benchmark that a record's command runs, as a path from the root; ValueError if none."""
    for word in command.split():
        if word.startswith(("benchmarks.", "benchmarks/")):
            name = word.replace(".", "/") if "/" not in word else word
            package = (ROOT / name).is_dir()
            return f"{name}/__main__.py" if package else name if "." in name else f"{name}.py"
    raise ValueError(f"command {command!r} runs no benchmark; write 'python -m benchmarks.NAME'")


def _content(path: Path) -> str:
    return _hash_of(path.read_bytes(), path.suffix == ".py")


@cache
def _hash_of(content: bytes, is_python: bool) -> str:
    if is_python:
        content = repr(_plain(ast.parse(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _plain(node: object) -> object:
    """The syntax tree as tuples, equal in all versions of Python; without docstrings."""
    if isinstance(node, list):
        return tuple(_plain(part) for part in node if not (_is_prose(part) or _names_sources(part)))
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Call) and _calls_write_record(node):
        kept = [keyword for keyword in node.keywords if keyword.arg not in PROSE]
        node = ast.Call(node.func, node.args, kept)
    fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name != "kind")
    return (type(node).__name__, *((k, v) for k, v in fields if v is not None and v != ()))


def _is_prose(node: object) -> bool:
    """Whether a node is a docstring, of a definition or beneath a field."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _names_sources(node: object) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "benchmarks.sources"


def _calls_write_record(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "write_record"
