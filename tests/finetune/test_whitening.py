"""Whitening: every property gets the same variance; content without variance is refused."""

import pytest
import torch

from catalog.errors import NonFiniteError
from finetune.recommender import Adaptor


@pytest.mark.parametrize("seed", range(40))
def test_whitened_properties_have_equal_variance(seed: int) -> None:
    torch.manual_seed(seed)
    loudness = torch.tensor([10.0, 1.0, 0.5, 0.0])
    vectors = torch.randn(500, 4) * loudness @ torch.linalg.qr(torch.randn(4, 4))[0] + 7
    adaptor = Adaptor(4)
    adaptor.whiten(vectors)
    with torch.no_grad():
        variances = torch.linalg.eigvalsh(torch.cov(adaptor(vectors).double().T))
    spread = variances.clamp(min=0).sqrt()  # an eigenvalue of 0 may round below it
    assert spread[0] < 0.01  # what never varies is not made of noise
    assert 0.8 < spread[1] <= spread[3] < 1.01


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_vectors_without_any_variance_are_not_whitened(noise: float) -> None:
    vectors = torch.nn.functional.normalize(torch.ones(30, 8), dim=-1) + noise * torch.randn(30, 8)
    with pytest.raises(NonFiniteError, match=r"content vectors of all 30 items are the same"):
        Adaptor(8).whiten(vectors)
    with pytest.raises(
        NonFiniteError, match=r"two or more finite content vectors; there are 1 among 2"
    ):
        Adaptor(2).whiten(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]))
