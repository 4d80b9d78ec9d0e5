"""Finds JSON that pyarrow must not be given: on some it crashes, and takes the process along."""

import numpy as np

DEEPEST = 100
"""Levels of objects and arrays that are read; pyarrow crashes at some 10,000, and Python refuses 1,000."""
OTHERS = bytes(set(range(256)) - set(b"[]{}\n"))
STEPS = np.zeros(256, np.int8)
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
PIECE = 1 << 16


def crashes_pyarrow(block: bytes) -> bool:
    """Whether pyarrow may crash on a block of lines: its first value is no object, or one is too deep.

    Lines that hold null are found, too: pyarrow reads them as rows.
    """
    return block.lstrip()[:1] != b"{" or b"\nnull" in block or is_deep(block)


def is_deep(block: bytes) -> bool:
    """Whether a line may be nested deeper than DEEPEST: brackets in its texts count, too."""
    brackets = block.translate(None, OTHERS)
    if len(brackets) <= DEEPEST:
        return False
    return any(len(line) > DEEPEST and _is_deep(line) for line in brackets.split(b"\n"))


def _is_deep(brackets: bytes) -> bool:
    marks, depth = np.frombuffer(brackets, np.uint8), 0
    for start in range(0, len(marks), PIECE):
        depths = np.cumsum(STEPS[marks[start : start + PIECE]], dtype=np.int32) + depth
        if depths.max() > DEEPEST:
            return True
        depth = int(depths[-1])
    return False
