"""Solvers of the flow-matching ODE: they integrate x_t from noise (t = 1) to a clean image (t = 0).

All solve dx/dt = (x_t − x̂(x_t, t)) / t, the probability flow of x_t = (1 − t) x + t ε, and need only
predictions x̂ of the clean image. A model of any other Gaussian path (Stable Diffusion's, for example)
gives such predictions too after scaling, so every denoiser can be sampled with every solver.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from catalog.errors import VitrineError, did_you_mean

PredictClean = Callable[[Tensor, float], Tensor]
"""(x_t, t) → x̂ in the shape of x_t."""
Solver = Callable[[PredictClean, Tensor, Sequence[float]], Tensor]
"""(prediction, noise, times) → clean latents in the shape of the noise."""


def euler(predict: PredictClean, noise: Tensor, times: Sequence[float]) -> Tensor:
    """x_s = (s/t) x_t + (1 − s/t) x̂: x̂ is constant over a step.

    On this path the same as DDIM (Song et al. 2021, equation 12, η = 0), for which
    x_s = (1 − s) x̂ + s ε̂ with ε̂ = (x_t − (1 − t) x̂) / t.
    """
    latents = noise
    for now, then in pairwise(times):
        latents = _interpolate(latents, predict(latents, now), then / now)
    return latents


def heun(predict: PredictClean, noise: Tensor, times: Sequence[float]) -> Tensor:
    """Euler's step, then the mean of the velocities at both ends of it (Karras et al. 2022, algorithm
    1); two predictions per step, one in the last."""
    latents = noise
    for now, then in pairwise(times):
        clean = predict(latents, now)
        following = _interpolate(latents, clean, then / now)
        if then > 0:
            velocity = (latents - clean) / now + (following - predict(following, then)) / then
            following = latents + (then - now) / 2 * velocity
        latents = following
    return latents


def dpm(predict: PredictClean, noise: Tensor, times: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): x̂ is extrapolated linearly
    in λ = log((1 − t) / t) from the last two predictions; Euler's step at the beginning and the end."""
    latents, previous = noise, None
    beginning = min(times[0], 1 - (1 - times[1]) / 16)  # at time 1 λ is infinite
    last = beginning
    for now, then in pairwise(times):
        clean = predict(latents, now)
        target = clean
        if previous is not None and then > 0:
            ratio = (_log_ratio(now) - _log_ratio(last)) / (_log_ratio(then) - _log_ratio(now))
            target = clean + (clean - previous) / (2 * ratio)
        latents = _interpolate(latents, target, then / now)
        previous, last = clean, min(now, beginning)
    return latents


def predict_correct(predict: PredictClean, noise: Tensor, times: Sequence[float]) -> Tensor:
    """Predictor-corrector: one prediction x̂ per step, used to correct the last step and to take the next.

    x̂ is modelled as linear in u = log t, for which the flow has an exact solution:
    x_s = (s/t) x_t + F(log s) − (s/t) F(log t), F(u) = a + b (u + 1) for x̂ = a + b u. Near t = 0,
    u is −λ, in which DPM-Solver++ and UniPC (Zhao et al. 2023) are linear; at t = 1, where λ is
    infinite and these fall back on Euler's step, u is smooth. The last step returns x̂ itself.
    """
    latents, previous, last = noise, None, 1.0
    start = latents
    for now, then in pairwise(times):
        clean = predict(latents, now)
        if previous is None:
            slope = torch.zeros_like(clean)
        else:
            slope = (clean - previous) / math.log(now / last)
            latents = _linear_step(start, clean, slope, now, last, now)
        if then == 0:
            return clean
        start, previous, last = latents, clean, now
        latents = _linear_step(latents, clean, slope, now, now, then)
    return latents


def _interpolate(latents: Tensor, clean: Tensor, share: float) -> Tensor:
    return share * latents + (1 - share) * clean


def _linear_step(
    latents: Tensor, clean: Tensor, slope: Tensor, at: float, now: float, then: float
) -> Tensor:
    """Exact step from time `now` to `then`, where x̂ is `clean` at time `at` and changes by `slope` with
    log t."""
    share = then / now
    rest = math.log(then / at) + 1 - share * (math.log(now / at) + 1)
    return _interpolate(latents, clean, share) + rest * slope


def _log_ratio(time: float) -> float:
    return math.log((1 - time) / time)


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "ddim": euler,
    "heun": heun,
    "dpm++": dpm,
    "pc": predict_correct,
}


def time_schedule(steps: int, shift: float = 1.0, start: float = 1.0) -> list[float]:
    """steps + 1 times from `start` down to 0, uniform and then shifted towards noise:
    t ↦ shift · t / (1 + (shift − 1) t) (Esser et al. 2024, equation 23)."""
    if steps < 1:
        raise VitrineError(f"steps {steps} samples nothing; use 1 or more, such as 12.")
    even = np.linspace(start, 0, steps + 1)
    return (shift * even / (1 + (shift - 1) * even)).tolist()


def get_solver(name: str) -> Solver:
    """The solver of this name; VitrineError for a name that is not in SOLVERS."""
    if name not in SOLVERS:
        known = ", ".join(SOLVERS)
        raise VitrineError(f"solver {name!r} is not one of {known}.{did_you_mean(name, SOLVERS)}")
    return SOLVERS[name]
