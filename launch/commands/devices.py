"""`--device` and `--precision`, as every command takes them that loads or trains a model."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from catalog.errors import VitrineError
from pretrain.config import Precision, TrainerConfig

if TYPE_CHECKING:
    from pretrain.devices import Compute

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    device: str = "auto"
    """Where the model runs: auto (the GPU where there is one), cpu, cuda, cuda:N or mps."""
    precision: Precision = "32-true"
    """Numbers it computes in; auto: bf16-mixed where the device multiplies it fast, else 32-true."""

    def compute(self) -> "Compute":
        """VitrineError for a device that is not there."""
        from pretrain.devices import choose_compute

        return choose_compute(self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    device: str = "auto"
    """Where it trains: auto (the GPU where there is one), cpu, cuda, cuda:N or mps; sets trainer.device."""
    precision: Precision | None = None
    """Numbers it trains in, as for the other commands; sets trainer.precision."""

    def apply(self, settings: Settings) -> Settings:
        """`settings`, every trainer in them on this device and in this precision.

        VitrineError where a trainer's own settings say otherwise.
        """
        changes: dict[str, Any] = {}
        if self.device != "auto":
            changes["device"] = self.device
        if self.precision is not None:
            changes["precision"] = self.precision
        return _change_trainers(settings, changes) if changes else settings


def _change_trainers(settings: Any, changes: dict[str, Any]) -> Any:
    if isinstance(settings, TrainerConfig):
        for name, value in changes.items():
            own, default = getattr(settings, name), getattr(TrainerConfig(), name)
            if own not in (default, value, "auto"):
                raise VitrineError(
                    f"--{name} {value} and trainer.{name} {own} differ; set one of them."
                )
        return replace(settings, **changes)
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    inner = {field.name: getattr(settings, field.name) for field in fields(settings)}
    changed = {name: _change_trainers(value, changes) for name, value in inner.items()}
    return replace(
        settings, **{name: new for name, new in changed.items() if new is not inner[name]}
    )
