"""The rows of ids, found by hashes as by their texts."""

import numpy as np
import pyarrow as pa
import pytest

from catalog import id_rows as id_rows_module
from catalog.id_rows import IdRows


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_ids_are_found_where_they_stand(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_rows_module, "BATCH", batch)
    ids = ["b", "ä", "", "10", None, "1", "long id with words"]
    rows_of = IdRows(pa.chunked_array([ids[:3], ids[3:]], pa.large_string()))
    asked = ["1", "x", None, "b", "1", "", "long id with words", "01"]
    expected = [5, -1, -1, 0, 5, 2, 6, -1]
    assert rows_of(pa.array(asked)).tolist() == expected
    assert rows_of(pa.chunked_array([asked[:2], asked[2:]])).tolist() == expected
    assert rows_of(pa.array(asked)).dtype == np.int32
    assert rows_of(pa.array([], pa.string())).tolist() == []
    assert IdRows(pa.chunked_array([], pa.string()))(pa.array(["a"])).tolist() == [-1]


def test_equal_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="two ids"):
        IdRows(pa.chunked_array([["a", "b", "a"]]))
