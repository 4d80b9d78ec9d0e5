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

from benchmarks.sampling import Mixture, diffuse
from catalog.errors import VitrineError
from generate.image.solvers import SOLVERS, get_solver, time_schedule


class Known(Mixture):
    """With the exact end of its flow, and how far from it a solver comes."""

    def error(self, solver: str, times: list[float]) -> float:
        return self.apart(SOLVERS[solver](self, self.noise, times))

    def apart(self, found: Tensor) -> float:
        return float((found - self.exact).norm(dim=1).mean())

    @cached_property
    def exact(self) -> Tensor:
        return SOLVERS["heun"](self, self.noise, time_schedule(1000))


@pytest.fixture(scope="module")
def mixture() -> Known:
    return Known(seed=0, kinds=8, width=6, starts=256)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("pc", 2), ("dpm++", 2)])
def test_error_falls_by_the_order_of_the_solver(mixture: Known, solver: str, order: int) -> None:
    few, many = (mixture.error(solver, time_schedule(steps)) for steps in (16, 128))
    assert math.log(few / many) / math.log(8) > order - 0.4


@pytest.mark.parametrize("steps", [4, 8, 16, 32])
def test_no_solver_is_worse_than_that_of_diffusers(mixture: Known, steps: int) -> None:
    flow = FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(sigmas=time_schedule(steps)[:-1])
    theirs = mixture.apart(diffuse(mixture, flow))
    for name in ("euler", "ddim"):
        assert mixture.error(name, time_schedule(steps)) <= theirs * 1.001
    multistep = DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    multistep.set_timesteps(steps)
    theirs = mixture.apart(diffuse(mixture, multistep))
    times = multistep.sigmas.tolist()
    assert mixture.error("dpm++", times) <= theirs * 1.02
    assert mixture.error("pc", time_schedule(steps, 0.8)) < 0.9 * theirs


def test_every_solver_lands_on_a_guess_that_never_changes() -> None:
    clean, noise = torch.randn(3, 5), torch.randn(3, 5)
    for name, solver in SOLVERS.items():
        for steps in (1, 2, 5):
            found = solver(lambda latents, time: clean, noise, time_schedule(steps, 1.7))
            torch.testing.assert_close(found, clean, rtol=0, atol=1e-5, msg=name)


def test_times_go_from_noise_to_nothing() -> None:
    assert time_schedule(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = time_schedule(4, 3.0)
    assert shifted[0] == 1
    assert shifted[-1] == 0
    assert shifted[2] == pytest.approx(0.75)
    with pytest.raises(VitrineError, match="steps 0"):
        time_schedule(0)
    with pytest.raises(VitrineError, match=r"solver 'eulr' is not one of .*'euler'"):
        get_solver("eulr")
