"""Whether the card computes what float64 on the CPU computes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.towers import SIZES, attention_of, batch_of, loss_of, our_module
from pretrain.objectives.contrast import sigmoid_loss, symmetric_info_nce

ROWS, WIDTH = 700, 64
PAIRS = 48


def checks(device: str) -> dict[str, Any]:
    return {
        "loss_gradient_error": max(
            distance(loss_gradients(which, scale, device), loss_gradients(which, scale))
            for which, scale in (("infonce", 14.3), ("infonce", 60.0), ("sigmoid", 14.3))
        ),
        **step_errors(device),
    }


def loss_gradients(which: str, scale: float, device: str = "") -> Tensor:
    """The loss and all its gradients, side by side: float32 on `device`, or float64 on the CPU."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        F.normalize(torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    ] + [torch.tensor([scale], dtype=torch.float64), torch.tensor([-5.0], dtype=torch.float64)]
    if device:
        leaves = [leaf.to(device, torch.float32) for leaf in leaves]
    left, right, steepness, bias = (leaf.requires_grad_() for leaf in leaves)
    chosen = torch.arange(ROWS, device=left.device) % 7 != 0
    if which == "infonce":
        inputs = (left, right, steepness)
        loss = symmetric_info_nce(left, right, steepness, chosen)
    else:
        inputs = (left, right, steepness, bias)
        loss = sigmoid_loss(left, right, steepness, bias, chosen)
    found = [loss.detach(), *torch.autograd.grad(loss, inputs)]
    return torch.cat([value.flatten().cpu().double() for value in found])


def step_errors(device: str) -> dict[str, Any]:
    """A whole step of small towers, also encoded in parts, compiled, and in bfloat16."""
    torch.manual_seed(0)
    size = SIZES["tiny"]
    exact = our_module(size, PAIRS).double()

    def gradients(where: str, half: bool = False, **settings: Any) -> Tensor:
        module = exact if where == "" else our_module(size, PAIRS, **settings)
        module.load_state_dict(exact.state_dict())
        module.to(where or "cpu").zero_grad()
        batch = batch_of(size, PAIRS, "cpu", titles=True)
        content = batch.content["image"]
        content["pixel_values"] = content["pixel_values"].to(next(module.parameters()).dtype)
        batch = module.transfer_batch_to_device(batch, torch.device(where or "cpu"), 0)
        with torch.autocast(where or "cpu", torch.bfloat16, enabled=half):
            loss = loss_of(module, batch)
        loss.backward()
        # What the loss does not reach has no gradient, or, made in parts, one of zeros.
        weights = module.parameters()
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in weights]
        return torch.cat([loss.detach().view(1), *flat]).cpu().double()

    expected = gradients("")
    module = our_module(size, PAIRS).to(device)
    return {
        "step_gradient_error": distance(gradients(device, groups=3), expected),
        "parts_gradient_error": distance(gradients(device, parts=3), expected),
        "compiled_gradient_error": distance(gradients(device, compiled=True), expected),
        "bf16_gradient_error": distance(gradients(device, half=True), expected),
        "attention": attention_of(module.encoder, batch_of(size, PAIRS, device)),
    }


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
