"""Weights rounded once give what autocast gives, which rounds them in each forward pass."""

import pytest
import torch
from torch import Tensor, nn

from pretrain.devices import Compute

BF16 = Compute(torch.device("cpu"), "bf16-mixed")


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, and a weight-normalised convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 16)
        self.convolution = nn.utils.weight_norm(nn.Conv1d(16, 16, 3, padding=1))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.inner = nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.convolution(self.words(ids).mT).mT
        hidden = hidden + self.attention(hidden, hidden, hidden)[0]
        return self.head(self.norm(self.inner(hidden)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_rounded_once_give_what_autocast_gives() -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    with torch.no_grad():
        model.inner.bias.add_(torch.randn(16))
    ids = torch.randint(20, (4, 9))
    rounded = Tied().eval()
    rounded.load_state_dict(model.state_dict())
    BF16.place_for_inference(rounded)
    assert rounded.inner.weight.dtype == rounded.inner.bias.dtype == torch.bfloat16
    assert rounded.words.weight.dtype == rounded.norm.weight.dtype == torch.float32
    assert rounded.head.weight is rounded.words.weight, "a tied weight is read elsewhere as well"
    with torch.no_grad(), BF16.autocast():
        expected = BF16.place(model)(ids)
        assert torch.equal(rounded(ids), expected)
    full = Compute(torch.device("cpu")).place_for_inference(Tied())
    assert {one.dtype for one in full.parameters()} == {torch.float32}
