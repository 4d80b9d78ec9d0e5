"""Whatever reads a history reads it causally, and each history in a row by itself."""

from pathlib import Path

import pytest
import torch

from catalog.errors import VitrineError
from pretrain.config import SequenceConfig
from pretrain.sequence_encoder import SequenceEncoder, new_sequence_encoder

LLAMA = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
GPT = {"model_type": "gpt2", "n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 64}
READERS = {
    "attention": SequenceConfig(heads=2),
    "hstu": SequenceConfig(heads=2, block="hstu"),
    "without its mean": SequenceConfig(heads=2, mean_residual=False),
    "llama": SequenceConfig(heads=2, decoder=LLAMA),
    "gpt2": SequenceConfig(heads=2, decoder=GPT),
}


@pytest.fixture(params=READERS)
def loader(request: pytest.FixtureRequest) -> SequenceEncoder:
    torch.manual_seed(0)
    loader = new_sequence_encoder(READERS[request.param], width=16).eval()
    with torch.no_grad():  # fresh weights are so small that nothing but the mean can be seen
        for parameter in loader.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
        if loader.mean_residual is not None:
            loader.mean_residual.correction.fill_(1.0)
    return loader


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, 16), dim=-1)


def test_histories_in_one_row_do_not_see_each_other(loader: SequenceEncoder) -> None:
    one, other = unit(1, 4), unit(1, 3)
    packed = loader(torch.cat([one, other], dim=1), torch.tensor([[0, 0, 0, 0, 1, 1, 1]]))
    alone = loader(other, torch.zeros(1, 3, dtype=torch.int64))
    torch.testing.assert_close(packed[:, 4:], alone, atol=1e-5, rtol=0)


def test_a_state_knows_nothing_of_what_follows(loader: SequenceEncoder) -> None:
    vectors = unit(2, 6)
    segments = torch.zeros(2, 6, dtype=torch.int64)
    before = loader(vectors, segments)
    changed = vectors.clone()
    changed[:, 4] = unit(2)
    after = loader(changed, segments)
    torch.testing.assert_close(before[:, :4], after[:, :4], atol=1e-6, rtol=0)
    assert (before[:, 4:] - after[:, 4:]).abs().amax(dim=-1).min().item() > 1e-3


def test_the_order_counts(loader: SequenceEncoder) -> None:
    vectors, segments = unit(1, 5), torch.zeros(1, 5, dtype=torch.int64)
    turned = torch.cat([vectors[:, :4].flip(1), vectors[:, 4:]], dim=1)
    assert (loader(vectors, segments) - loader(turned, segments))[:, -1].abs().max().item() > 1e-4


def test_states_have_unit_length_and_every_weight_learns(loader: SequenceEncoder) -> None:
    states = loader.train()(unit(2, 6), torch.zeros(2, 6, dtype=torch.int64))
    torch.testing.assert_close(states.norm(dim=-1), torch.ones(2, 6))
    (states * unit(2, 6)).sum().backward()
    idle = [n for n, p in loader.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


def test_it_comes_back_as_it_was(loader: SequenceEncoder, tmp_path: Path) -> None:
    vectors, segments = unit(2, 6), torch.zeros(2, 6, dtype=torch.int64)
    loader.save_pretrained(tmp_path)
    again = SequenceEncoder.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(vectors, segments), loader(vectors, segments))


def test_a_decoder_starts_from_its_checkpoint_and_keeps_no_words(tmp_path: Path) -> None:
    from transformers import AutoModel

    from pretrain.hub import make_config

    torch.manual_seed(1)
    original = AutoModel.from_config(make_config({**LLAMA, "vocab_size": 500}))
    original.save_pretrained(tmp_path)
    loader = new_sequence_encoder(SequenceConfig(heads=2, model=str(tmp_path)), width=16)
    assert loader.decoder is not None
    weights = loader.decoder.model.state_dict()
    for name, value in original.state_dict().items():
        if "embed_tokens" in name:
            assert len(weights[name]) == 1
        else:
            assert torch.equal(weights[name], value), name
    loader.save_pretrained(tmp_path / "saved")
    again = SequenceEncoder.from_pretrained(tmp_path / "saved")
    vectors, segments = unit(1, 4), torch.zeros(1, 4, dtype=torch.int64)
    torch.testing.assert_close(again.eval()(vectors, segments), loader.eval()(vectors, segments))


def test_what_cannot_be_built_is_refused_in_one_line() -> None:
    with pytest.raises(VitrineError, match="no sequence encoder has blocks called 'lstm'"):
        new_sequence_encoder(SequenceConfig(block="lstm"), width=16)  # pyright: ignore[reportArgumentType]
    with pytest.raises(VitrineError, match="width 18 cannot be shared by 4 attention heads"):
        new_sequence_encoder(SequenceConfig(), width=18)
    with pytest.raises(VitrineError, match="needs a model_type"):
        new_sequence_encoder(SequenceConfig(decoder={"hidden_size": 8}), width=16)
