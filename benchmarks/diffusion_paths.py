"""Bases' predictions as x at times of our flow, compared with diffusers' own schedulers on a toy network."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from generate.image.base_paths import BasePath, base_path
from generate.image.solvers import SOLVERS

BETAS: dict[str, Any] = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False,
    "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
VARIANCE_PRESERVING = ("epsilon", "v_prediction", "sample")
STEPS = 5
"""Solver steps: DDIM's timesteps divide evenly."""


def ddim(prediction: str) -> Any:
    return DDIMScheduler(**BETAS, prediction_type=prediction)  # pyright: ignore[reportArgumentType]


def flow_match() -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def flow_dpm() -> Any:
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=1
    )


def network(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A toy network: smooth in its inputs, different in each channel, and at each timestep."""
    shift = torch.arange(latents.shape[1], dtype=latents.dtype)[None, :, None, None] / 4
    return torch.tanh(0.7 * latents.flip(1) + shift) * (1 + timesteps / 1000)[:, None, None, None]


def random_latents(seed: int) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()


def time_at(alpha_squared: Tensor) -> float:
    """The time of our flow at which a variance-preserving path has this signal power."""
    a, s = alpha_squared.double().sqrt(), (1 - alpha_squared.double()).sqrt()
    return float(s / (a + s))


def predict(path: BasePath, noisy: Tensor, time: float) -> Tensor:
    """x̂ by the toy network on a base's path."""
    times = torch.full((len(noisy),), time, dtype=torch.float64)
    inputs, timesteps = path.inputs(noisy, times)
    return path.clean(network(inputs, timesteps.to(noisy.dtype)), inputs, times)


def difference_to_original_sample(prediction: str) -> float:
    """Largest difference of x̂ from the `pred_original_sample` of DDIM, at four timesteps."""
    scheduler = ddim(prediction)
    path, latents = base_path(scheduler), random_latents(0)
    scheduler.set_timesteps(1000)
    worst = 0.0
    for step in (20, 300, 700, 990):
        output = network(latents, torch.full((2,), float(step)))
        own = scheduler.step(output, step, latents).pred_original_sample
        alpha_squared = scheduler.alphas_cumprod[step].double()
        spread = alpha_squared.sqrt() + (1 - alpha_squared).sqrt()
        found = predict(path, latents / spread, time_at(alpha_squared))
        worst = max(worst, float((found - own).abs().max()))
    return worst


def difference_to_flow() -> float:
    """Largest difference of x̂ from x_t − t v, v being what the network predicts, at four times."""
    path, latents = base_path(flow_match()), random_latents(0)
    found = [
        predict(path, latents, time)
        - (latents - time * network(latents, torch.full((2,), 1000 * time)))
        for time in (0.05, 0.3, 0.8, 1.0)
    ]
    return float(torch.stack(found).abs().max())


def difference_to_scheduler(scheduler: Any, times: Sequence[float]) -> float:
    """Largest difference of where our Euler solver lands, through `times`, from where the scheduler does."""
    path, noise = base_path(scheduler), random_latents(1)
    latents = noise
    for step in scheduler.timesteps:
        output = network(latents, torch.full((2,), float(step)))
        latents = scheduler.step(output, step, latents, return_dict=False)[0]
    spread = ((1 - times[0]) ** 2 + times[0] ** 2) ** 0.5
    ours = SOLVERS["euler"](lambda x, t: predict(path, x, t), spread * noise, times)
    return float((ours - latents).abs().max())


def landing_difference(kind: str) -> float:
    """`difference_to_scheduler` of DDIM by its prediction type, of flow-match, or of flow-dpm, which rounds
    its timesteps to whole numbers."""
    if kind in VARIANCE_PRESERVING:
        scheduler = ddim(kind)
        scheduler.set_timesteps(STEPS)
        times = [time_at(scheduler.alphas_cumprod[int(step)]) for step in scheduler.timesteps]
        return difference_to_scheduler(scheduler, [*times, 0.0])
    scheduler = flow_match() if kind == "flow-match" else flow_dpm()
    scheduler.set_timesteps(STEPS)
    return difference_to_scheduler(scheduler, [float(sigma) for sigma in scheduler.sigmas])
