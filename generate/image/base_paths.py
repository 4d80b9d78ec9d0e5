"""Noise paths of pretrained bases: how what a base predicts becomes x̂, clean latents, at a time of our flow.

A base was trained on the variance-preserving path z = alpha x + sigma ε with alpha² + sigma² = 1 (Stable
Diffusion, PixArt), or on that of flow matching, x_t = (1 − t) x + t ε, which is ours (Stable Diffusion 3,
Flux, Sana). The former equals ours up to a scale: x_t = z / (alpha + sigma) at t = sigma / (alpha + sigma).
Which it is, and what the base predicts, is read from the config of its own scheduler.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from catalog.errors import VitrineError

MIN_TIME = 0.002
"""Smaller times are clamped to it: the base was not trained at lower noise."""
PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction")
"""What a base may predict, as its scheduler's `prediction_type` says it."""
FLOW_SCHEDULERS = "FlowMatch"
"""Schedulers whose names begin so have no `prediction_type`: their bases predict the flow."""


class BasePath(Protocol):
    """The noise path of a base, and what it predicts."""

    @property
    def latest_time(self) -> float:
        """The time of the greatest noise that the base was trained at."""
        ...

    def inputs(self, noisy: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (batch, channels, rows, columns) at times (batch,) → the base's own noisy latents, and its
        timesteps (batch,), 0 to 1000."""
        ...

    def clean(self, predicted: Tensor, inputs: Tensor, times: Tensor) -> Tensor:
        """x̂ from what the base predicted for `inputs`."""
        ...

    def loss_weight(self, times: Tensor) -> Tensor:
        """(batch,): the factor that turns the squared error of x̂ at `times` into that of what the base
        predicts."""
        ...


class VariancePreservingPath:
    """z = alpha x + sigma ε with alpha² + sigma² = 1, at the timesteps of a diffusers scheduler."""

    def __init__(self, alphas_cumprod: Tensor, prediction: str) -> None:
        """`alphas_cumprod` (timesteps,): alpha² of each timestep."""
        alphas = alphas_cumprod.double()
        self.prediction = prediction
        self.ratios = (1 - alphas).sqrt() / (alphas.sqrt() + (1 - alphas).sqrt())
        """(timesteps,): flow-matching time of each timestep of the base, float64."""

    @property
    def latest_time(self) -> float:
        """At most 1 − MIN_TIME: with zero terminal SNR, x̂ from a predicted noise would be divided by 0."""
        return min(float(self.ratios[-1]), 1 - MIN_TIME)

    def inputs(self, noisy: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self._alpha_sigma(times)
        return noisy * (alpha + sigma).to(noisy.dtype), self._timesteps(self._clamped(times))

    def clean(self, predicted: Tensor, inputs: Tensor, times: Tensor) -> Tensor:
        alpha, sigma = (part.to(inputs.dtype) for part in self._alpha_sigma(times))
        if self.prediction == "epsilon":
            return (inputs - sigma * predicted) / alpha
        if self.prediction == "v_prediction":
            return alpha * inputs - sigma * predicted
        return predicted

    def loss_weight(self, times: Tensor) -> Tensor:
        if self.prediction == "sample":
            return torch.ones_like(times)
        times = times.clamp(MIN_TIME, self.latest_time)
        weight = ((1 - times) / times).square()
        return weight if self.prediction == "epsilon" else weight + 1

    def _clamped(self, times: Tensor) -> Tensor:
        return times.double().clamp(MIN_TIME, self.latest_time)

    def _alpha_sigma(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise levels (batch, 1, 1, 1), float64."""
        times = self._clamped(times)[:, None, None, None]
        scale = ((1 - times) ** 2 + times**2).rsqrt()
        return (1 - times) * scale, times * scale

    def _timesteps(self, times: Tensor) -> Tensor:
        """The base's own timesteps (batch,), interpolated linearly; outside of its times the nearest."""
        ratios = self.ratios.to(times.device)
        upper = torch.searchsorted(ratios, times).clamp(1, len(ratios) - 1)
        below, above = ratios[upper - 1], ratios[upper]
        share = ((times - below) / (above - below)).clamp(0, 1)
        return (upper - 1 + share).float()


class FlowMatchingPath:
    """x_t = (1 − t) x + t ε, on which the base predicts the velocity ε − x: x̂ = x_t − t v."""

    latest_time = 1.0

    def __init__(self, num_timesteps: int = 1000) -> None:
        self.num_timesteps = num_timesteps

    def inputs(self, noisy: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        return noisy, (self.num_timesteps * times.double()).float()

    def clean(self, predicted: Tensor, inputs: Tensor, times: Tensor) -> Tensor:
        return inputs - times.to(inputs.dtype)[:, None, None, None] * predicted

    def loss_weight(self, times: Tensor) -> Tensor:
        return times.clamp(min=MIN_TIME).square().reciprocal()


def prediction_type(scheduler: dict[str, Any]) -> str:
    """What a base predicts, by the config of its scheduler; VitrineError where it is not known."""
    name = str(scheduler.get("_class_name", "its scheduler"))
    default = "flow_prediction" if name.startswith(FLOW_SCHEDULERS) else "epsilon"
    prediction = str(scheduler.get("prediction_type", default))
    has_betas = "beta_schedule" in scheduler or "trained_betas" in scheduler
    if prediction not in PREDICTIONS or (prediction != "flow_prediction" and not has_betas):
        what = prediction if has_betas else f"{prediction} on a noise schedule without betas"
        raise VitrineError(
            f"the model predicts {what} ({name}); give one that predicts "
            f"{', '.join(PREDICTIONS[:-1])} or {PREDICTIONS[-1]}."
        )
    return prediction


def base_path(scheduler: Any) -> BasePath:
    """The path of a base, by its diffusers scheduler; VitrineError as in `prediction_type`."""
    config = {"_class_name": type(scheduler).__name__, **scheduler.config}
    prediction = prediction_type(config)
    if prediction == "flow_prediction":
        return FlowMatchingPath(int(config.get("num_train_timesteps", 1000)))
    return VariancePreservingPath(scheduler.alphas_cumprod, prediction)
