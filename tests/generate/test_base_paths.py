"""What bases predict, as predictions of x at times of our flow: compared with diffusers' own schedulers."""

import pytest
import torch
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

from benchmarks.diffusion_paths import (
    VARIANCE_PRESERVING,
    ddim,
    difference_to_flow,
    difference_to_original_sample,
    flow_dpm,
    flow_match,
    landing_difference,
)
from catalog.errors import VitrineError
from generate.image.base_paths import FlowMatchingPath, base_path, prediction_type


@pytest.mark.parametrize("prediction", VARIANCE_PRESERVING)
def test_x_is_the_schedulers_own_estimate_of_the_original_sample(prediction: str) -> None:
    assert difference_to_original_sample(prediction) <= 1e-5


def test_x_is_what_is_left_of_a_flow_without_its_velocity() -> None:
    assert difference_to_flow() <= 1e-5
    assert isinstance(base_path(flow_dpm()), FlowMatchingPath)
    clean, noise = torch.randn(2, 4, 3, 8, 8).double()
    for time in (0.05, 0.5, 1.0):
        noisy = (1 - time) * clean + time * noise
        inputs, timesteps = base_path(flow_match()).inputs(noisy, torch.full((4,), time))
        assert torch.equal(inputs, noisy)
        assert torch.allclose(timesteps, torch.full((4,), 1000 * time))
        found = base_path(flow_match()).clean(noise - clean, inputs, torch.full((4,), time))
        assert (found - clean).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", [*VARIANCE_PRESERVING, "flow-match", "flow-dpm"])
def test_our_solver_lands_where_the_schedulers_do(kind: str) -> None:
    assert landing_difference(kind) <= (2e-2 if kind == "flow-dpm" else 1e-4)


@pytest.mark.parametrize("prediction", [*VARIANCE_PRESERVING, "flow"])
def test_the_loss_weight_turns_errors_of_x_into_those_of_the_prediction(prediction: str) -> None:
    path = base_path(flow_match() if prediction == "flow" else ddim(prediction))
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
