"""A generated picture becomes a file in one way, which signs it: no other code of ours encodes pictures."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("generate", "launch")
ENCODES = {
    "add_figure", "add_image", "add_images", "encode_jpeg", "encode_png", "encode_webp", "imencode",
    "imsave", "imwrite", "log_image", "save", "save_image", "savefig", "tofile", "write_bytes",
    "write_jpeg", "write_png",
}  # fmt: skip
"""Names of functions that could make a file of pixels."""
SAMPLES = {"pipeline", "generate_unmarked"}
"""What generates images that are neither checked nor watermarked."""
SIGNS = {"signed_png", "signed_jpeg"}
REVIEWED = {
    # The one way, and who may take it: pictures that were checked, a sheet of them, training's samples.
    ("generate/provenance.py", "signed_png", "image.save"),
    ("generate/provenance.py", "signed_jpeg", "image.convert('RGB').save"),
    ("generate/image/sampler.py", "to_signed_png", "signed_png"),
    ("generate/image/sampler.py", "signed_contact_sheet", "signed_png"),
    ("generate/image/sample_grid.py", "log_grid", "signed_png"),
    ("generate/image/sample_grid.py", "_to_tensorboard", "signed_png"),
    # What these write is already signed.
    ("generate/image/sample_grid.py", "log_grid", "file.write_bytes"),
    ("generate/image/sample_grid.py", "log_grid", "logger.log_image"),
    ("generate/image/loading.py", "sample_image", "Path(output).write_bytes"),
    ("generate/image/report.py", "run_image_scores", "(staging.path / SHEET_FILE).write_bytes"),
    ("generate/showcase.py", "make_gallery", "(folder / f'{files}-{condition}.png').write_bytes"),
    # Drawn to be checked and marked (the sampler), measured and dropped (scores), or marked (samples).
    ("generate/image/sampler.py", "generate_unmarked", "self.pipeline"),
    ("generate/image/sampler.py", "sample", "self.generate_unmarked"),
    ("generate/image/score.py", "sample_under_conditions", "sampler.generate_unmarked"),
    ("generate/image/sample_grid.py", "on_train_batch_end", "pipeline"),
    # An item's own picture, made small for a page, and on the sheet of a catalog.
    ("launch/report/item_cards.py", "small_jpeg", "pixels.save"),
    ("launch/commands/catalog.py", "catalog_show", "contact_sheet(catalog, shown).save"),
    # No pictures: curves, latents, checkpoints, keys, and what `vitrine doctor` tries a disk with.
    ("generate/text/run.py", "run_text_generator", "curves.save"),
    ("generate/image/run.py", "run_image_generator", "curves.save"),
    ("generate/image/latent_cache.py", "encode_images", "np.save"),
    ("generate/provenance.py", "_new_key", "open(…, 'wb')"),
    ("launch/checkpoints.py", "save_state", "path.open('wb')"),
    ("launch/checkpoints.py", "save_state", "torch.save"),
}
"""(file, function, call) of every use of those names, read by a person."""


def uses(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(function, call) of all that could make a file of pixels, sign one, or draw one."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            continue
        for node in _own_nodes(function):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(function, "name", "")
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in ENCODES | SAMPLES | SIGNS:
                yield name, called
            mode = [a.value for a in node.args if isinstance(a, ast.Constant)]
            mode += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
            if called.rpartition(".")[2] in ("open", "fdopen") and any(
                isinstance(text, str) and set("wax") & set(text) and "b" in text for text in mode
            ):
                yield name, f"{called}({'…, ' if node.args[1:] else ''}{mode[-1]!r})"


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Of a function, not of those inside it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _own_nodes(node)


def test_only_the_signing_functions_write_a_generated_image() -> None:
    found = set()
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("launch/checks/"):  # files that doctor writes and removes again
                tree = ast.parse(path.read_text(encoding="utf8"))
                found |= {(name, function, call) for function, call in uses(tree)}
    assert found - REVIEWED == set(), "new; sign it, or review it and say why here"
    assert REVIEWED - found == set(), "reviewed, but nobody needs it any more"


@pytest.mark.parametrize(
    "line",
    [
        "picture.save(buffer, format='PNG')",
        "cv2.imwrite(path, pixels)",
        "plt.savefig(path)",
        "(folder / name).write_bytes(content)",
        "open(path, 'wb')",
        "path.open(mode='wb')",
        "experiment.add_image(name, grid)",
        "wandb_logger.log_image(name, [grid])",
        "signed_png(picture, {})",
        "sampler.pipeline(states, vectors, seeds)",
        "np.save(path, pixels)",
    ],
)
def test_the_search_detects_other_ways_to_write_an_image(line: str) -> None:
    inside = f"class A:\n    def f(self):\n        if self:\n            {line}\n"
    assert [function for function, _ in uses(ast.parse(inside))] == ["f"]
    assert len(list(uses(ast.parse(line)))) == 1
