"""Solvers against a flow whose every clean guess is known: a mixture of Gaussians."""

import math
from functools import cached_property

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from catalog.errors import VitrineError
from generate.image.solvers import SOLVERS, solver_of, times_for


class Mixture:
    """E[x | x_t] where x comes from a mixture of Gaussians; torch.float64."""

    def __init__(self, kinds: int = 8, width: int = 6) -> None:
        draw = torch.Generator().manual_seed(0)
        self.means = 1.2 * torch.randn(kinds, width, generator=draw, dtype=torch.float64)
        self.spreads = 0.1 + 0.4 * torch.rand(kinds, width, generator=draw, dtype=torch.float64)
        self.noise = torch.randn(256, width, generator=draw, dtype=torch.float64)

    def __call__(self, latents: Tensor, time: float) -> Tensor:
        clean = 1 - time
        variances = (clean * self.spreads) ** 2 + time**2  # (kinds, width)
        away = latents[:, None] - clean * self.means
        shares = torch.softmax(-(away.square() / variances + variances.log()).sum(-1) / 2, -1)
        guesses = self.means + clean * self.spreads**2 / variances * away
        return (shares[..., None] * guesses).sum(1)

    def error(self, solver: str, times: list[float]) -> float:
        return self.apart(SOLVERS[solver](self, self.noise, times))

    def apart(self, found: Tensor) -> float:
        return float((found - self.exact).norm(dim=1).mean())

    @cached_property
    def exact(self) -> Tensor:
        return SOLVERS["heun"](self, self.noise, times_for(1000))


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return Mixture()


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("pc", 2), ("dpm++", 2)])
def test_error_falls_by_the_order_of_the_solver(mixture: Mixture, solver: str, order: int) -> None:
    few, many = (mixture.error(solver, times_for(steps)) for steps in (16, 128))
    assert math.log(few / many) / math.log(8) > order - 0.4


@pytest.mark.parametrize("steps", [4, 8, 16, 32])
def test_no_solver_is_worse_than_that_of_diffusers(mixture: Mixture, steps: int) -> None:
    flow = FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(sigmas=times_for(steps)[:-1])
    theirs = mixture.apart(_diffuse(mixture, flow))
    for name in ("euler", "ddim"):
        assert mixture.error(name, times_for(steps)) <= theirs * 1.001
    multistep = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    multistep.set_timesteps(steps)
    theirs = mixture.apart(_diffuse(mixture, multistep))
    times = multistep.sigmas.tolist()
    assert mixture.error("dpm++", times) <= theirs * 1.02
    assert mixture.error("pc", times_for(steps, 0.8)) < 0.9 * theirs


def _diffuse(mixture: Mixture, scheduler) -> Tensor:
    latents = mixture.noise
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        time = float(sigma)
        velocity = (latents - mixture(latents, time)) / time
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    return latents


def test_every_solver_lands_on_a_guess_that_never_changes() -> None:
    clean, noise = torch.randn(3, 5), torch.randn(3, 5)
    for name, solver in SOLVERS.items():
        for steps in (1, 2, 5):
            found = solver(lambda latents, time: clean, noise, times_for(steps, 1.7))
            torch.testing.assert_close(found, clean, rtol=0, atol=1e-5, msg=name)


def test_times_go_from_noise_to_nothing() -> None:
    assert times_for(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = times_for(4, 3.0)
    assert shifted[0] == 1
    assert shifted[-1] == 0
    assert shifted[2] == pytest.approx(0.75)
    with pytest.raises(VitrineError, match="steps 0"):
        times_for(0)
    with pytest.raises(VitrineError, match=r"solver 'eulr' is not one of .*'euler'"):
        solver_of("eulr")
