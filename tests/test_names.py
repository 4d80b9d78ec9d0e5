"""The import names are plain words; this finds out when another package brings one of them too."""

from importlib.metadata import packages_distributions

import pytest


@pytest.mark.parametrize(
    "name", ["catalog", "pretrain", "finetune", "generate", "launch", "configs"]
)
def test_import_name_belongs_to_vitrine_alone(name: str) -> None:
    assert set(packages_distributions()[name]) == {"vitrine"}
