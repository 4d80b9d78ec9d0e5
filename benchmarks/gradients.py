"""Contrastive losses on 1, 2 and 4 ranks against float64 autograd in one process.

python -m benchmarks.gradients    # about a minute
"""

import tempfile
from pathlib import Path

from benchmarks.record import write_record
from tests.pretrain.test_contrast import CASES, on_ranks, true_gradients, worst_error

RANKS = (1, 2, 4)


def main() -> None:
    truth = true_gradients()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for ranks in RANKS:
            errors = worst_error(on_ranks(ranks, Path(folder) / "gradients.pt"), truth)
            figures[f"cases_{ranks}"] = len(errors)
            for loss in CASES["LOSSES"]:
                found = [error for case, error in errors.items() if case.split("/")[0] == loss]
                figures[f"{loss.replace('-', '_')}_{ranks}"] = max(found)
            figures[f"worst_{ranks}"] = max(errors.values())
        wrong = worst_error(on_ranks(2, Path(folder) / "gradients.pt", "--mutant"), truth)
    for loss in ("infonce", "next_item"):
        found = [error for case, error in wrong.items() if case.split("/")[0] == loss]
        figures[f"gather_without_gradient_{loss}"] = max(found)
    write_record(
        "pretrain-gradients",
        claim="Loss and gradients on 1, 2 and 4 ranks, in chunks, with vectors made in parts, with "
        "ragged ends and missing modalities, are those of one process in float64.",
        command="python -m benchmarks.gradients",
        seeds=[3],
        figures=figures,
        sources=[
            "pretrain/grad_cache.py",
            "pretrain/distributed.py",
            "pretrain/objectives/*.py",
            "tests/pretrain/test_contrast.py",
            "tests/pretrain/contrast_ranks.py",
        ],
        goal=[
            *(f"worst_{ranks} <= 1e-5" for ranks in RANKS),
            # A gather that drops the gradient, as some released trainers have, must be noticed.
            "gather_without_gradient_infonce >= 1e-2",
            "gather_without_gradient_next_item >= 1e-2",
        ],
        note="Largest error of any entry, relative to the largest entry of what is true; float32, "
        "gloo. Each loss × chunks of 256 and of 5 × vectors made at once and in 3 cached parts; 13 "
        "slots a rank on 4 ranks, a quarter of each modality missing, and all pictures of one rank.",
    )


if __name__ == "__main__":
    main()
