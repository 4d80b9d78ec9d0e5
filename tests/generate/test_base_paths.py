"""What bases predict, as predictions of x at times of our flow: compared with diffusers' own schedulers."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from catalog.errors import VitrineError
from generate.image.base_paths import BasePath, FlowMatchingPath, base_path, prediction_type
from generate.image.solvers import SOLVERS

BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False,
    "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
VARIANCE_PRESERVING = ("epsilon", "v_prediction", "sample")


def ddim(prediction: str) -> Any:
    return DDIMScheduler(**BETAS, prediction_type=prediction)  # pyright: ignore[reportArgumentType]


def network(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A toy network: smooth in its inputs, different in each channel, and at each timestep."""
    shift = torch.arange(latents.shape[1], dtype=latents.dtype)[None, :, None, None] / 4
    return torch.tanh(0.7 * latents.flip(1) + shift) * (1 + timesteps / 1000)[:, None, None, None]


def time_at(alpha_squared: Tensor) -> float:
    a, s = alpha_squared.double().sqrt(), (1 - alpha_squared.double()).sqrt()
    return float(s / (a + s))


def predict(path: BasePath, noisy: Tensor, time: float) -> Tensor:
    times = torch.full((len(noisy),), time, dtype=torch.float64)
    inputs, timesteps = path.inputs(noisy, times)
    return path.clean(network(inputs, timesteps.to(noisy.dtype)), inputs, times)


@pytest.mark.parametrize("prediction", VARIANCE_PRESERVING)
def test_x_is_the_schedulers_own_estimate_of_the_original_sample(prediction: str) -> None:
    scheduler = ddim(prediction)
    path = base_path(scheduler)
    latents = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    scheduler.set_timesteps(1000)
    for step in (20, 300, 700, 990):
        output = network(latents, torch.full((4,), float(step)))
        own = scheduler.step(output, step, latents).pred_original_sample
        alpha_squared = scheduler.alphas_cumprod[step].double()
        spread = alpha_squared.sqrt() + (1 - alpha_squared).sqrt()
        found = predict(path, latents / spread, time_at(alpha_squared))
        assert (found - own).abs().max() <= 1e-5


def test_x_is_what_is_left_of_a_flow_without_its_velocity() -> None:
    path = base_path(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert isinstance(path, FlowMatchingPath)
    clean, noise = torch.randn(2, 4, 3, 8, 8).double()
    for time in (0.05, 0.5, 1.0):
        noisy = (1 - time) * clean + time * noise
        inputs, timesteps = path.inputs(noisy, torch.full((4,), time))
        assert torch.equal(inputs, noisy)
        assert torch.allclose(timesteps, torch.full((4,), 1000 * time))
        found = path.clean(noise - clean, inputs, torch.full((4,), time))
        assert (found - clean).abs().max() <= 1e-5
        own = predict(path, noisy, time)
        velocity = network(noisy, timesteps.double())
        assert (own - (noisy - time * velocity)).abs().max() <= 1e-5


@pytest.mark.parametrize("prediction", VARIANCE_PRESERVING)
def test_our_solver_lands_where_ddim_does(prediction: str) -> None:
    scheduler = ddim(prediction)
    scheduler.set_timesteps(5)
    path = base_path(scheduler)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    latents = noise
    for step in scheduler.timesteps:
        output = network(latents, torch.full((2,), float(step)))
        latents = scheduler.step(output, step, latents, eta=0.0).prev_sample
    times = [time_at(scheduler.alphas_cumprod[int(step)]) for step in scheduler.timesteps] + [0.0]
    start = ((1 - times[0]) ** 2 + times[0] ** 2) ** 0.5
    ours = SOLVERS["ddim"](lambda x, t: predict(path, x, t), start * noise, times)
    assert (ours - latents).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", ["flow-match", "dpm"])
def test_our_solver_lands_where_the_flow_schedulers_do(kind: str) -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    if kind == "dpm":
        scheduler = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=1
        )
    scheduler.set_timesteps(5)
    path = base_path(scheduler)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    latents = noise
    for step in scheduler.timesteps:
        output = network(latents, torch.full((2,), float(step)))
        latents = scheduler.step(output, step, latents).prev_sample
    ours = SOLVERS["euler"](
        lambda x, t: predict(path, x, t), noise * 1.0, [float(t) for t in scheduler.sigmas]
    )
    tolerance = 1e-4 if kind == "flow-match" else 2e-2  # whose timesteps are whole numbers
    assert (ours - latents).abs().max() <= tolerance


@pytest.mark.parametrize("prediction", [*VARIANCE_PRESERVING, "flow"])
def test_the_loss_weight_turns_errors_of_x_into_those_of_the_prediction(prediction: str) -> None:
    flow = prediction == "flow"
    path = base_path(FlowMatchEulerDiscreteScheduler() if flow else ddim(prediction))
    noisy, times = torch.randn(3, 2, 4, 4).double(), torch.tensor([0.2, 0.5, 0.8]).double()
    inputs, _ = path.inputs(noisy, times)
    one, other = torch.randn(2, 3, 2, 4, 4).double()
    apart = path.clean(one, inputs, times) - path.clean(other, inputs, times)
    weighted = path.loss_weight(times) * apart.square().mean((1, 2, 3))
    assert torch.allclose(weighted, (one - other).square().mean((1, 2, 3)), rtol=1e-5)


def test_other_predictions_are_refused_in_one_line() -> None:
    assert prediction_type({"_class_name": "DDIMScheduler", "beta_schedule": "linear"}) == "epsilon"
    with pytest.raises(VitrineError, match=r"the model predicts trigflow.*give one that predicts"):
        prediction_type({"_class_name": "SCMScheduler", "prediction_type": "trigflow"})
    with pytest.raises(VitrineError, match=r"without betas .EDMEulerScheduler."):
        base_path(EDMEulerScheduler())
