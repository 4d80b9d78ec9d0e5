"""The item encoder: missing modalities, initialisation, save and load."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from catalog.errors import VitrineError
from pretrain.encoder import ItemEncoder, ItemEncoderConfig, ItemVectors, MaskedGate
from pretrain.grad_cache import check_micro_batches, encode_in_micro_batches, split_content
from pretrain.modalities import Content
from pretrain.sequence_encoder import SequenceEncoder, SequenceEncoderConfig
from pretrain.towers.build import compile_layers
from pretrain.towers.projection import scatter_present

BERT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
VIT = {
    "model_type": "vit",
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.fixture
def encoder() -> ItemEncoder:
    torch.manual_seed(0)
    return ItemEncoder(config_with(1)).eval()


def config_with(length_groups: int) -> ItemEncoderConfig:
    read = {"layer": -1, "pooling": "mean"}
    text = {"kind": "text", "source": "text", "tower": BERT, "max_tokens": 8, **read}
    image = {"kind": "image", "source": "image", "tower": VIT, "image_size": 16, **read}
    text["length_groups"] = length_groups
    image |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    return ItemEncoderConfig(
        width=16, modalities=[{"name": "text", **text}, {"name": "image", **image}]
    )


def batch(text: list[bool], image: list[bool]) -> Content:
    generator = torch.Generator().manual_seed(1)
    num_texts, num_images = max(1, sum(text)), max(1, sum(image))
    return {
        "text": {
            "present": torch.tensor(text),
            "input_ids": torch.randint(4, 50, (num_texts, 5), generator=generator),
            "attention_mask": torch.ones(num_texts, 5, dtype=torch.int64),
        },
        "image": {
            "present": torch.tensor(image),
            "pixel_values": torch.randn(num_images, 3, 16, 16, generator=generator),
        },
    }


@pytest.mark.parametrize("num_texts", [1, 3, 17])
def test_texts_grouped_by_length_are_read_as_if_padded_together(num_texts: int) -> None:
    torch.manual_seed(0)
    whole = ItemEncoder(config_with(1)).eval()
    grouped = ItemEncoder(config_with(4)).eval()
    grouped.load_state_dict(whole.state_dict())
    content = batch([True] * num_texts + [False], [True] * (num_texts + 1))
    lengths = torch.randint(1, 6, (num_texts, 1))
    content["text"]["attention_mask"] = (torch.arange(5) < lengths).long()
    passes: list[torch.Size] = []
    grouped.towers["text"].register_forward_hook(
        lambda module, inputs, kwargs, output: passes.append(kwargs["input_ids"].shape),
        with_kwargs=True,
    )
    together = grouped(content)
    torch.testing.assert_close(together.item, whole(content).item)
    first = {key: value[:1] for key, value in content["text"].items()}
    picture = {key: value[:1] for key, value in content["image"].items()}
    alone = whole({"text": first, "image": picture})
    torch.testing.assert_close(together.projected_embeddings[0], alone.projected_embeddings[0])
    assert len(passes) == 4, "as many passes on every rank, however few texts it has"
    places = sum(rows * length for rows, length in passes)
    assert num_texts < 17 or places < content["text"]["input_ids"].numel()


def test_compiled_layers_keep_their_names_and_what_they_say(encoder: ItemEncoder) -> None:
    content = batch([True, True], [True, True])
    names, expected = list(encoder.state_dict()), encoder(content).item
    compile_layers(encoder)
    layers = [m for m in encoder.modules() if m._compiled_call_impl is not None]
    assert {type(layer).__name__ for layer in layers} == {"BertLayer", "ViTLayer"}
    assert list(encoder.state_dict()) == names
    with torch.compiler.set_stance("force_eager"):  # compiling itself takes half a minute
        torch.testing.assert_close(encoder(content).item, expected)


def test_towers_start_with_their_own_initialisation(encoder: ItemEncoder) -> None:
    embedding = encoder.towers["text"].embeddings.word_embeddings.weight
    assert 0.015 < embedding.std().item() < 0.025


def test_an_item_without_a_modality_is_known_by_the_other_alone(encoder: ItemEncoder) -> None:
    vectors = encoder(batch([True, True], [True, False]))
    torch.testing.assert_close(vectors.item[1].norm(), torch.tensor(1.0))
    assert vectors.projected_embeddings[1, 1].abs().sum() == 0
    changed = batch([True, True], [True, False])
    changed["image"]["pixel_values"] *= -3
    again = encoder(changed)
    torch.testing.assert_close(again.item[1], vectors.item[1])
    assert (again.item[0] - vectors.item[0]).abs().max() > 1e-3


def test_items_with_nothing_share_a_learned_vector_and_get_gradient_only_there(
    encoder: ItemEncoder,
) -> None:
    vectors = encoder(batch([False, False], [False, False]))
    torch.testing.assert_close(vectors.item[0], vectors.item[1])
    torch.testing.assert_close(vectors.item[0].norm(), torch.tensor(1.0))
    vectors.item[0, 0].backward()
    assert encoder.gate.nothing.grad is not None
    assert encoder.gate.nothing.grad.abs().sum() > 0
    tower = encoder.towers["text"].embeddings.word_embeddings.weight
    assert tower.grad is not None  # every tower takes part in every step, as ZeRO-3 needs
    assert tower.grad.abs().sum() == 0


def test_scatter_puts_rows_where_they_belong() -> None:
    rows = torch.tensor([[1.0], [2.0]])
    full = scatter_present(rows, torch.tensor([False, True, False, True]))
    assert full.squeeze(1).tolist() == [0, 1, 0, 2]
    nothing = scatter_present(rows[:1], torch.zeros(3, dtype=torch.bool))
    assert nothing.squeeze(1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_items_encoded_in_parts_have_one_batch_s_gradient_with_dropout_on(
    encoder: ItemEncoder, parts: int
) -> None:
    """Cached (each part is run again in the backward pass) against the same parts kept whole."""
    torch.manual_seed(0)
    encoder.train().double()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    content = batch([True, False, True, False, False], [True, True, False, False, False])
    content["image"]["pixel_values"] = content["image"]["pixel_values"].double()

    def gradients(encode: Callable[[], ItemVectors]) -> list[torch.Tensor]:
        torch.manual_seed(5)
        vectors = encode()
        loss = (vectors.item @ vectors.item.T).square().sum() + vectors.projected_embeddings[
            :, 0
        ].sum()
        encoder.zero_grad()
        loss.backward()
        return [
            loss.detach(),
            *(p.grad.clone() for p in encoder.parameters() if p.grad is not None),
        ]

    def whole() -> ItemVectors:
        encoded = [encoder(part) for part in split_content(content, parts)]
        names = ("item", "projected_embeddings", "modality_embeddings", "present", "visible_mask")
        return ItemVectors(*(torch.cat([getattr(e, n) for e in encoded]) for n in names))

    expected = gradients(whole)
    passes: list[None] = []
    counting = encoder.gate.register_forward_hook(lambda *_: passes.append(None))
    cached = gradients(lambda: encode_in_micro_batches(encoder, content, parts))
    counting.remove()
    assert len(passes) == 2 * parts  # nothing of the first run was kept
    assert len(cached) == len(expected) > 20
    for ours, theirs in zip(cached, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)
    torch.manual_seed(6)
    assert not torch.equal(whole().item, encode_in_micro_batches(encoder, content, parts).item)


def test_parts_leave_no_graph_of_the_towers_behind(encoder: ItemEncoder) -> None:
    content = batch([True] * 6, [True] * 6)

    def size_of_graph(parts: int) -> int:
        found, waiting = set(), [encode_in_micro_batches(encoder, content, parts).item.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in found:
                found.add(node)
                waiting.extend(following for following, _ in node.next_functions)
        return len(found)

    assert size_of_graph(6) == size_of_graph(2)


def test_parts_are_run_again_in_the_precision_of_their_first_run(encoder: ItemEncoder) -> None:
    precisions: list[torch.dtype] = []
    encoder.projections["text"].linear.register_forward_hook(
        lambda module, inputs, output: precisions.append(output.dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        vectors = encode_in_micro_batches(encoder, batch([True] * 4, [True] * 4), 2)
        other = encoder.projections["text"].linear(torch.ones(1, 32))
    (vectors.item.square().sum() + other.sum()).backward()
    assert precisions == [torch.bfloat16] * 5
    assert other.grad_fn is not None
    gradient = encoder.projections["text"].linear.bias.grad
    assert gradient is not None
    assert (gradient > 0.9).all(), "a weight cast without gradient must serve nobody who wants one"


def test_parts_that_are_frozen_but_for_the_heads_train_the_heads(encoder: ItemEncoder) -> None:
    encoder.requires_grad_(False)
    encoder.heads.requires_grad_(True)
    content = batch([True] * 4, [True] * 4)
    gradients = []
    for parts in (1, 2):
        encoder.zero_grad()
        vectors = encode_in_micro_batches(encoder, content, parts)
        (vectors.projected_embeddings * vectors.item.unsqueeze(1)).sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[1]) == 4
    for cached, whole in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(cached, whole)


def test_what_cannot_be_encoded_in_parts_is_refused(encoder: ItemEncoder) -> None:
    with pytest.raises(VitrineError, match=r"num_micro_batches is 0; give 1 or more"):
        check_micro_batches(encoder, 0)
    encoder.towers["text"].add_module("norm", torch.nn.BatchNorm1d(4))
    check_micro_batches(encoder, 1)
    with pytest.raises(VitrineError, match=r"towers\.text\.norm normalises over its batch"):
        check_micro_batches(encoder, 2)


def test_parts_give_what_one_pass_gives(encoder: ItemEncoder) -> None:
    content = batch([True, False, True, False, False], [True, True, False, False, False])
    one = encoder.eval()(content)
    several = encode_in_micro_batches(encoder, content, 3)
    torch.testing.assert_close(several.item, one.item)
    torch.testing.assert_close(several.projected_embeddings, one.projected_embeddings)
    assert torch.equal(several.present, one.present)


def test_an_absent_modality_has_no_weight_in_the_gate() -> None:
    gate = MaskedGate(4, 2)
    parts = torch.randn(3, 2, 4)
    fused = gate(parts, torch.tensor([[True, False], [False, True], [True, True]]))
    torch.testing.assert_close(fused[0], parts[0, 0])
    torch.testing.assert_close(fused[1], parts[1, 1])


def test_saved_and_loaded_is_the_same(encoder: ItemEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = ItemEncoder.from_pretrained(tmp_path).eval()
    inputs = batch([True, False, True], [True, True, False])
    torch.testing.assert_close(loaded(inputs).item, encoder(inputs).item, rtol=0, atol=0)


@pytest.fixture
def history() -> SequenceEncoder:
    torch.manual_seed(0)
    config = SequenceEncoderConfig(width=16, num_layers=2, num_heads=2, max_history=8)
    return SequenceEncoder(config).eval()


def test_a_state_never_sees_the_future(history: SequenceEncoder) -> None:
    vectors = torch.randn(1, 6, 16)
    segments = torch.zeros(1, 6, dtype=torch.int64)
    states = history(vectors, segments)
    vectors[:, 4:] = torch.randn(1, 2, 16)
    changed = history(vectors, segments)
    torch.testing.assert_close(changed[:, :4], states[:, :4])
    assert (changed[:, 4:] - states[:, 4:]).abs().max() > 1e-3


def test_histories_are_read_in_half_precision_without_autocast(history: SequenceEncoder) -> None:
    """As under ZeRO with bf16-mixed, where the weights themselves are half precision."""
    vectors = F.normalize(torch.randn(1, 6, 16), dim=-1)
    segments = torch.zeros(1, 6, dtype=torch.int64)
    expected = history(vectors, segments)
    states = history.bfloat16()(vectors.bfloat16(), segments)
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states.float(), expected, atol=0.05, rtol=0)


def test_histories_packed_in_one_row_are_encoded_as_if_alone(history: SequenceEncoder) -> None:
    vectors = torch.randn(1, 7, 16)
    packed = history(vectors, torch.tensor([[0, 0, 0, 1, 1, 1, -1]]))
    alone = history(vectors[:, 3:6], torch.zeros(1, 3, dtype=torch.int64))
    torch.testing.assert_close(packed[:, 3:6], alone, atol=1e-5, rtol=0)
    mixed = history(vectors, torch.zeros(1, 7, dtype=torch.int64))
    assert (mixed[:, 3:6] - alone).abs().max() > 1e-3


def test_a_reader_without_correction_is_the_mean_of_what_was_taken(
    history: SequenceEncoder,
) -> None:
    vectors = F.normalize(torch.randn(1, 6, 16), dim=-1)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        history.mean_residual.correction.zero_()
        states = history(vectors, segments)
        torch.testing.assert_close(states[0, 2], F.normalize(vectors[0, :3].mean(0), dim=-1))
        torch.testing.assert_close(states[0, 5], F.normalize(vectors[0, 3:].mean(0), dim=-1))
        history.mean_residual.recency.fill_(30.0)
        torch.testing.assert_close(history(vectors, segments), vectors)  # only the newest counts
