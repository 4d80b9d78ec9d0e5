"""Rates by layer, the moving average, and what only saves memory or time: the same on any ranks."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from catalog.errors import VitrineError
from pretrain.config import OptimizerConfig
from pretrain.encoder import ItemEncoder, ItemEncoderConfig
from pretrain.grad_cache import check_compiled
from pretrain.optim import GuardedAdamW, layer_rates, make_optimizer
from tests.pretrain.runs import facts, largest_difference, train

SMALL = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
READ = {"layer": -1, "pooling": "mean", "max_tokens": 8, "length_groups": 1}
TOWERS = {
    "text": {"kind": "text", "tower": {"model_type": "bert", "vocab_size": 20, **SMALL}, **READ},
    "decoder": {
        "kind": "text",
        "tower": {"model_type": "gpt2", "n_embd": 8, "n_layer": 3, "n_head": 2, "vocab_size": 20},
        **READ,
    },
    "image": {
        "kind": "image",
        "tower": {"model_type": "vit", "image_size": 16, "patch_size": 8, **SMALL},
        "image_size": 16,
        **READ,
    },
}


@pytest.fixture
def encoder() -> ItemEncoder:
    modalities = [{"name": name, "source": name, **about} for name, about in TOWERS.items()]
    return ItemEncoder(ItemEncoderConfig(width=8, modalities=modalities))


@pytest.mark.parametrize("tower", TOWERS)
def test_lower_layers_learn_slower(tower: str, encoder: ItemEncoder) -> None:
    rates = layer_rates(encoder, 0.5)
    seen: dict[float, set[str]] = {}
    for name, parameter in encoder.named_parameters():
        if f"towers.{tower}." in name:
            seen.setdefault(rates.get(parameter, 1.0), set()).add(name)
        elif "towers." not in name:
            assert parameter not in rates, name
    assert set(seen) == {1.0, 0.5, 0.25, 0.125}
    for layer, rate in enumerate((0.25, 0.5, 1.0)):
        assert any(f".{layer}." in name for name in seen[rate])
    assert all(any(word in n for word in ("embed", "wte", "wpe")) for n in seen[0.125])
    assert layer_rates(encoder, 1.0) == {}


STAGED = {
    "convnext": {"num_stages": 2, "hidden_sizes": [8, 8], "depths": [1, 2]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 2]},
    "swin": {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 2},
    "segformer": {"num_encoder_blocks": 2, "hidden_sizes": [8, 8], "depths": [1, 2]},
}


@pytest.mark.parametrize("kind", STAGED)
def test_layers_of_a_staged_network_are_counted_along_it(kind: str) -> None:
    """Stages of one layer and of two: three layers, wherever a stage begins to number anew."""
    tower = {"model_type": kind, "image_size": 16, "patch_size": 2, **STAGED[kind]}
    about = {"name": "image", "source": "image", "kind": "image", "image_size": 16, "tower": tower}
    encoder = ItemEncoder(ItemEncoderConfig(width=8, modalities=[{**READ, **about}]))
    rates = layer_rates(encoder, 0.5)
    of_layer = {"0.0": 0.25, "1.0": 0.5, "1.1": 1.0}
    seen = set()
    for name, parameter in encoder.towers["image"].named_parameters():
        rate = rates.get(parameter, 1.0)
        numbered = re.search(r"(?:stages|layers)\.(\d)(?:\.(?:layers|blocks)\.(\d))?", name)
        if numbered is None:
            assert rate == (0.125 if "embed" in name else 1.0), name
        elif numbered[2] is None:  # what leads into a stage, or out of it
            before, after = ("0.0", "1.0") if numbered[1] == "0" else ("1.0", "1.1")
            leads_in = "downsampling" in name or "patch_embeddings" in name
            assert rate == of_layer[before if leads_in or numbered[1] == "0" else after], name
        else:
            seen.add(f"{numbered[1]}.{numbered[2]}")
            assert rate == of_layer[f"{numbered[1]}.{numbered[2]}"], name
    assert seen == set(of_layer)


def test_all_that_leads_to_the_first_layer_learns_slowest() -> None:
    """Whatever it is called: a projection of sound, a norm before the layers."""
    sound = {"model_type": "wav2vec2", **SMALL, "conv_dim": [8, 8], "conv_stride": [2, 2]}
    sound |= {"conv_kernel": [2, 2], "num_conv_pos_embeddings": 4}
    sound |= {"num_feat_extract_layers": 2, "num_conv_pos_embedding_groups": 2}
    looks = {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, **SMALL}
    modalities = [
        {"name": "audio", "kind": "audio", "source": "audio", "tower": sound, **READ}
        | {"input": "input_values"},
        {"name": "image", "kind": "image", "source": "image", "tower": looks, **READ},
    ]
    encoder = ItemEncoder(ItemEncoderConfig(width=8, modalities=modalities))
    rates = layer_rates(encoder, 0.5)
    slowest = {n for n, p in encoder.named_parameters() if rates.get(p, 1.0) == 0.125}
    for part in ("feature_projection", "feature_extractor", "pos_conv_embed", "pre_layrnorm"):
        assert any(part in name for name in slowest), part
    assert not any("encoder.layers." in name or "post_layernorm" in name for name in slowest)


def test_groups_keep_rate_and_decay_apart(encoder: ItemEncoder) -> None:
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.3, layer_decay=0.5)
    made = make_optimizer(encoder.parameters(), config, 100, layer_rates(encoder, 0.5))
    groups = made["optimizer"].param_groups
    assert sorted({group["initial_lr"] for group in groups}) == [0.0125, 0.025, 0.05, 0.1]
    for group in groups:
        assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters()))


def test_weights_that_learn_in_turns_rise_and_fall_each_in_their_own() -> None:
    first, second = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_share=0.5)
    windows = {first: range(4), second: range(4, 12)}
    made = make_optimizer([first, second], config, 12, schedule_windows=windows)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(12):
        rates.append([group["lr"] for group in optimizer.param_groups])
        first.grad, second.grad = torch.ones(2, 2), torch.ones(2, 2)
        optimizer.step()
        schedule.step()
    by_weight = {id(g["params"][0]): place for place, g in enumerate(optimizer.param_groups)}
    of_first = [rate[by_weight[id(first)]] for rate in rates]
    of_second = [rate[by_weight[id(second)]] for rate in rates]
    assert of_first == pytest.approx([0.05, 0.1, 0.1, 0.05] + [0] * 8)
    assert of_second[:4] == [0] * 4
    assert of_second[4:8] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert of_second[8] == pytest.approx(0.1)
    assert 0 < of_second[11] < 0.02


def test_the_average_follows_the_weights_and_takes_their_place_at_the_end() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4))
    plain = nn.Parameter(weight.detach().clone())
    averaged = GuardedAdamW([{"params": [weight]}], lr=0.1, ema_decay=0.9)
    ordinary = GuardedAdamW([{"params": [plain]}], lr=0.1)
    expected = None
    for step in range(1, 41):
        gradient = torch.randn(4)
        weight.grad, plain.grad = gradient.clone(), gradient.clone()
        averaged.skip_step = ordinary.skip_step = step == 38
        averaged.apply_ema = step == 40
        before = plain.detach().clone()
        averaged.step()
        ordinary.step()
        if step == 38:
            assert torch.equal(plain, before)
            continue
        taken = step - (step > 38)
        decay = min(0.9, (1 + taken) / (10 + taken))
        expected = plain.detach().clone() if expected is None else expected.lerp(plain, 1 - decay)
        if step < 40:
            assert torch.equal(weight, plain), "the average is only kept"
    assert expected is not None
    torch.testing.assert_close(weight, expected)
    assert (weight - plain).abs().max() > 1e-2


def weights(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "model.safetensors")


@pytest.fixture(scope="module")
def alone(demo_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("averaged") / "encoder"
    train(demo_world / "home", output, steps=6, every=0, ema_decay=0.5, layer_decay=0.7)
    return output


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_shards_hold_their_part_of_the_average(
    strategy: str, alone: Path, demo_world: Path, tmp_path: Path
) -> None:
    settings = {"steps": 6, "every": 0, "ema_decay": 0.5, "layer_decay": 0.7}
    output = tmp_path / "encoder"
    train(demo_world / "home", output, strategy=strategy, devices=2, **settings)
    assert facts(output)["kind"] == strategy
    mine, theirs = weights(output), weights(alone)
    for name, value in theirs.items():
        if not name.endswith(("key.bias", "k_proj.bias")):  # of no effect: their gradient is noise
            np.testing.assert_allclose(mine[name], value, atol=2e-5, err_msg=name)
    bare = tmp_path / "bare"
    train(demo_world / "home", bare, **(settings | {"ema_decay": 0.0}))
    moved = weights(bare)
    assert max(np.abs(moved[name] - value).max() for name, value in theirs.items()) > 1e-4


def test_layers_computed_twice_change_nothing(
    alone: Path, demo_world: Path, tmp_path: Path
) -> None:
    settings = {"steps": 6, "every": 0, "ema_decay": 0.5, "layer_decay": 0.7}
    train(demo_world / "home", tmp_path / "encoder", activation_checkpointing=True, **settings)
    assert largest_difference(tmp_path / "encoder", alone) < 1e-6


@pytest.mark.slow
def test_compiled_towers_learn_the_same(alone: Path, demo_world: Path, tmp_path: Path) -> None:
    settings = {"steps": 6, "every": 0, "ema_decay": 0.5, "layer_decay": 0.7}
    train(demo_world / "home", tmp_path / "encoder", compile=True, **settings)
    assert largest_difference(tmp_path / "encoder", alone) < 1e-4


def test_compiling_is_refused_where_weights_come_and_go() -> None:
    with pytest.raises(VitrineError, match="under ZeRO-3 weights come and go"):
        check_compiled(True, "zero3-offload")
