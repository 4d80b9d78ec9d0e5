"""What another number of ranks reads of a ZeRO checkpoint: sealed, and of known types alone."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from catalog.errors import VitrineError
from launch.reshard import (
    NATIVE,
    UNIVERSAL,
    allowed_types,
    convert_to_universal,
    finish_loading,
    is_converted,
    refuse_foreign_types,
)
from tests.test_untrusted import Evil


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As DeepSpeed leaves it, with a conversion that counts how often it is done."""
    folder = tmp_path / "state"
    (folder / NATIVE).mkdir(parents=True)
    scaler, stage, *_ = (kind for kind in allowed_types() if kind.__name__ != "DynamicLossScaler")
    states = {"scaler": scaler(1.0), "stage": stage(2), "weight": torch.ones(3)}
    torch.save(states, folder / NATIVE / "mp_rank_00_model_states.pt")
    (folder / "times").write_text("")

    def main(settings: SimpleNamespace) -> None:
        output = Path(settings.output_folder)
        (output / "zero").mkdir(parents=True)
        torch.save({"param_groups": []} | states, output / "zero" / "optimizer_state.pt")
        torch.save({"module": {}}, output / "mp_rank_00_model_states.pt")
        (folder / "latest_universal").write_text(UNIVERSAL)
        with (folder / "times").open("a") as file:
            file.write("x")

    fake = ModuleType("ds_to_universal")
    vars(fake)["main"] = main
    monkeypatch.setitem(sys.modules, "deepspeed.checkpoint.ds_to_universal", fake)
    return folder


def times(checkpoint: Path) -> int:
    return len((checkpoint / "times").read_text())


def test_a_conversion_is_sealed_and_used_again(checkpoint: Path) -> None:
    convert_to_universal(checkpoint)
    assert is_converted(checkpoint)
    convert_to_universal(checkpoint)
    assert times(checkpoint) == 1


@pytest.mark.parametrize("fault", ["changed", "gone", "unsealed", "another"])
def test_a_corrupt_conversion_is_redone(fault: str, checkpoint: Path) -> None:
    convert_to_universal(checkpoint)
    state = checkpoint / UNIVERSAL / "zero" / "optimizer_state.pt"
    if fault == "changed":
        torch.save({"param_groups": [], "evil": Evil(checkpoint / "ran")}, state)
    elif fault == "gone":
        state.unlink()
    elif fault == "another":
        (checkpoint / "latest_universal").write_text("elsewhere")
    else:
        (checkpoint / "universal.json").unlink()
    assert not is_converted(checkpoint)
    convert_to_universal(checkpoint)
    assert times(checkpoint) == 2
    assert is_converted(checkpoint)
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_before_deepspeed_reads_it(
    zipped: bool, checkpoint: Path
) -> None:
    refuse_foreign_types(checkpoint)
    mark, path = checkpoint / "ran", checkpoint / NATIVE / "zero_pp_rank_0_optim_states.pt"
    torch.save({"evil": Evil(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(VitrineError, match=r"optim_states\.pt holds .* could run code"):
        refuse_foreign_types(checkpoint)
    with pytest.raises(VitrineError):
        convert_to_universal(checkpoint)
    assert not mark.exists()
    assert times(checkpoint) == 0


def test_what_is_read_of_a_conversion_is_tensors_and_known_types(checkpoint: Path) -> None:
    convert_to_universal(checkpoint)
    module = torch.nn.Linear(1, 1)
    optimizer = SimpleNamespace(param_groups=[], optimizer=SimpleNamespace(state={}))
    engine = SimpleNamespace(optimizer=optimizer, module=module)
    finish_loading(engine, checkpoint)
    mark = checkpoint / "ran"
    torch.save({"evil": Evil(mark)}, checkpoint / UNIVERSAL / "zero" / "optimizer_state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        finish_loading(engine, checkpoint)
    assert not mark.exists()
