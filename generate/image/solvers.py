"""From noise to a picture in few steps: how x_t is carried from one time to the next.

All follow dx/dt = (x_t − x̂(x_t, t)) / t, the flow of x_t = (1 − t) x + t ε, and ask only for guesses
x̂ of the clean picture. A model of any other Gaussian path (Stable Diffusion's, say) gives such guesses
too, scaled; so they serve every denoiser.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from catalog.errors import VitrineError, did_you_mean

Estimate = Callable[[Tensor, float], Tensor]
"""(x_t, t) → x̂ in the shape of x_t."""


def euler(estimate: Estimate, noise: Tensor, times: Sequence[float]) -> Tensor:
    """x_s = (s/t) x_t + (1 − s/t) x̂: x̂ is held over a step.

    On this path the same as DDIM (Song et al. 2021, equation 12, η = 0), for which
    x_s = (1 − s) x̂ + s ε̂ with ε̂ = (x_t − (1 − t) x̂) / t.
    """
    latents = noise
    for now, then in pairwise(times):
        latents = _towards(latents, estimate(latents, now), then / now)
    return latents


def heun(estimate: Estimate, noise: Tensor, times: Sequence[float]) -> Tensor:
    """Euler's step, then the mean of the velocities at both ends of it (Karras et al. 2022, algorithm
    1); two guesses a step, one in the last."""
    latents = noise
    for now, then in pairwise(times):
        guess = estimate(latents, now)
        ahead = _towards(latents, guess, then / now)
        if then > 0:
            velocity = (latents - guess) / now + (ahead - estimate(ahead, then)) / then
            ahead = latents + (then - now) / 2 * velocity
        latents = ahead
    return latents


def dpm(estimate: Estimate, noise: Tensor, times: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): x̂ is drawn on as a line in
    λ = log((1 − t) / t) through the last two guesses; Euler's step at the beginning and the end."""
    latents, before = noise, None
    beginning = min(times[0], 1 - (1 - times[1]) / 16)  # at time 1 λ is infinite
    last = beginning
    for now, then in pairwise(times):
        guess = estimate(latents, now)
        aim = guess
        if before is not None and then > 0:
            ratio = (_log_ratio(now) - _log_ratio(last)) / (_log_ratio(then) - _log_ratio(now))
            aim = guess + (guess - before) / (2 * ratio)
        latents = _towards(latents, aim, then / now)
        before, last = guess, min(now, beginning)
    return latents


def predict_correct(estimate: Estimate, noise: Tensor, times: Sequence[float]) -> Tensor:
    """One guess a step, used twice: to correct the step that led there, and to predict the next.

    x̂ is taken for a line in u = log t, through which the flow is solved exactly:
    x_s = (s/t) x_t + F(log s) − (s/t) F(log t), F(u) = a + b (u + 1) for x̂ = a + b u. Near t = 0,
    u is −λ, in which DPM-Solver++ and UniPC (Zhao et al. 2023) draw their lines; at t = 1, where λ is
    infinite and these fall back on Euler's step, u is smooth. The last step ends in x̂ itself.
    """
    latents, before, last = noise, None, 1.0
    start = latents
    for now, then in pairwise(times):
        guess = estimate(latents, now)
        if before is None:
            slope = torch.zeros_like(guess)
        else:
            slope = (guess - before) / math.log(now / last)
            latents = _along(start, guess, slope, now, last, now)
        if then == 0:
            return guess
        start, before, last = latents, guess, now
        latents = _along(latents, guess, slope, now, now, then)
    return latents


def _towards(latents: Tensor, guess: Tensor, share: float) -> Tensor:
    return share * latents + (1 - share) * guess


def _along(
    latents: Tensor, guess: Tensor, slope: Tensor, at: float, now: float, then: float
) -> Tensor:
    """From time `now` to `then`, where x̂ is `guess` at time `at` and changes by `slope` with log t."""
    share = then / now
    rest = math.log(then / at) + 1 - share * (math.log(now / at) + 1)
    return _towards(latents, guess, share) + rest * slope


def _log_ratio(time: float) -> float:
    return math.log((1 - time) / time)


SOLVERS: dict[str, Callable[[Estimate, Tensor, Sequence[float]], Tensor]] = {
    "euler": euler,
    "ddim": euler,
    "heun": heun,
    "dpm++": dpm,
    "pc": predict_correct,
}


def times_for(steps: int, shift: float = 1.0, start: float = 1.0) -> list[float]:
    """steps + 1 times from `start` down to 0, evenly spaced and then shifted towards noise:
    t ↦ shift · t / (1 + (shift − 1) t) (Esser et al. 2024, equation 23)."""
    if steps < 1:
        raise VitrineError(f"steps {steps} draws nothing; use 1 or more, 12 is a good start.")
    even = np.linspace(start, 0, steps + 1)
    return (shift * even / (1 + (shift - 1) * even)).tolist()


def solver_of(name: str) -> Callable[[Estimate, Tensor, Sequence[float]], Tensor]:
    """Raises VitrineError for a name that is none of SOLVERS."""
    if name not in SOLVERS:
        known = ", ".join(SOLVERS)
        raise VitrineError(f"solver {name!r} is not one of {known}.{did_you_mean(name, SOLVERS)}")
    return SOLVERS[name]
