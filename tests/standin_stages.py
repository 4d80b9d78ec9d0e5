"""Every stage's forward pass on the stand-in accelerator, as one JSON line.

python tests/standin_stages.py FOLDER

For each stage: the errors, where it mixed devices; the largest difference to the CPU; and the products with
weights, by device and dtype, in float32, with weights in bfloat16, and under autocast (on the CPU).
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from catalog.catalog import Catalog
from catalog.config import CatalogConfig, SplitConfig
from catalog.splits import Split, load_split
from finetune.config import FinetuneConfig
from pretrain.config import (
    EncoderConfig,
    PretrainConfig,
    PretrainDataConfig,
    SequenceConfig,
    TowerConfig,
)
from pretrain.devices import Compute, on_cpu
from tests.standin import StandIn, register

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXT = {"model_type": "bert", "intermediate_size": 32, **SMALL}
IMAGE = {"model_type": "vit", "intermediate_size": 32, "patch_size": 16, **SMALL}


@dataclass
class Inputs:
    """The demo world's catalog, an encoder's settings, and the folder of an encoder artifact."""

    catalog: Catalog
    split: Split
    pretraining: PretrainConfig
    encoder: Path

    @property
    def finetuning(self) -> FinetuneConfig:
        config = self.pretraining
        return FinetuneConfig(
            encoder=str(self.encoder), catalog=config.catalog, split=config.split, transfer="full"
        )


def make_inputs(folder: Path) -> Inputs:
    from catalog.demo import build_demo_world
    from launch.trainer import build_trainer
    from pretrain.config import TrainerConfig
    from pretrain.run import run_pretraining

    world = build_demo_world(folder / "world", num_items=60, num_users=16)
    config = PretrainConfig(
        catalog=CatalogConfig(path=str(world / "home")),
        split=SplitConfig(kind="leave-one-out"),
        encoder=EncoderConfig(
            width=16,
            text=TowerConfig(config=TEXT, vocab_size=200),
            image=TowerConfig(config=IMAGE, image_size=32),
            sequence=SequenceConfig(layers=1, heads=2, max_history=8),
            modality_dropout=0.0,
        ),
        data=PretrainDataConfig(rows=3, row_length=6, max_broken=0.5),
        trainer=TrainerConfig(max_steps=0, progress=False, device="cpu"),
    )
    encoder = run_pretraining(config, folder / "encoder", build_trainer)
    return Inputs(*load_split(config.catalog, config.split), config, encoder)


def training_step(config: Any, inputs: Inputs, compute: Compute) -> list[Tensor]:
    """The loss of one step, and the weights after it."""
    from finetune.data import FinetuneData
    from launch.memory_plan.build import build_stage
    from launch.memory_plan.footprint import detach_from_trainer
    from pretrain.data import PretrainData
    from pretrain.optim import make_optimizer

    torch.manual_seed(0)
    with _disable_current_modes():  # it takes a step of its own on the CPU
        built = build_stage(config, inputs.catalog, inputs.split)
    detach_from_trainer(built.module)
    module = compute.place(built.module.eval())
    data = PretrainData if isinstance(config, PretrainConfig) else FinetuneData
    batch = data.transfer_batch_to_device(None, built.batch(0), compute.device, 0)  # type: ignore[arg-type]
    optimizer = make_optimizer(module.parameters(), config.optimizer, 2)["optimizer"]
    with compute.autocast():
        loss: Any = module.training_step(batch, 0)
    loss.backward()
    optimizer.step()
    return [loss.detach(), *(p.detach() for p in module.parameters() if p.requires_grad)]


def pretraining(inputs: Inputs, compute: Compute) -> list[Tensor]:
    return training_step(inputs.pretraining, inputs, compute)


def finetuning(inputs: Inputs, compute: Compute) -> list[Tensor]:
    return training_step(inputs.finetuning, inputs, compute)


def sampled_softmax(inputs: Inputs, compute: Compute) -> list[Tensor]:
    config = replace(inputs.finetuning, features="content+id", id_width=8)
    config = replace(config, transfer="scratch", loss="sampled", negatives=8)
    return training_step(config, inputs, compute)


def embedding(inputs: Inputs, compute: Compute) -> list[Tensor]:
    """Item embeddings of `vitrine embed`, and those of a tower alone."""
    from pretrain.artifact import EncoderBundle
    from pretrain.config import EmbedConfig, ExtractConfig
    from pretrain.embed import EmbeddingRun, open_loader
    from pretrain.extract import Extractors
    from pretrain.vector_file import open_vectors

    bundle = EncoderBundle.load(inputs.encoder)
    extract = {"tower": ExtractConfig(modality="text", layer=0)}
    config = EmbedConfig(encoder=str(inputs.encoder), catalog=inputs.pretraining.catalog)
    extractors = Extractors(extract, bundle, inputs.catalog)
    name = f"{compute.device.type}-{compute.precision}"
    output = inputs.encoder.with_name(f"vectors-{name}")
    loader = open_loader(inputs.catalog, bundle, extractors)
    run = EmbeddingRun(config, loader, bundle, extractors, output, compute)
    run.run()
    run.store.close()
    files = sorted(run.work.glob("*.safetensors"))
    return [torch.from_numpy(np.array(open_vectors(file))) for file in files]


def make_ranker(inputs: Inputs, compute: Compute, features: str = "content") -> Any:
    from finetune.assembly import assemble
    from finetune.components import build_components
    from finetune.ranker import Ranker

    torch.manual_seed(0)
    config = replace(inputs.finetuning, features=features)  # type: ignore[arg-type]
    components = build_components(config, inputs.catalog)
    recommender = assemble(components, config, inputs.catalog.num_items).recommender
    vectors = (
        np.random.default_rng(0).normal(size=(inputs.catalog.num_items, 16)).astype(np.float32)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Ranker(compute.place(recommender), vectors, precision=compute.precision)


def ranking(inputs: Inputs, compute: Compute) -> list[Tensor]:
    """User states, image vectors, a list, and the ranks of the test targets (evaluation)."""
    ranker = make_ranker(inputs, compute)
    histories = [inputs.catalog.interactions.history(user) for user in range(4)]
    ranker.rank(histories[0], 5)
    images = [np.full((40, 30, 3), level, dtype=np.uint8) for level in (0, 120)]
    states, vectors = ranker.user_states(histories), ranker.image_vectors(images)
    metrics = ranker.rank_targets(inputs.catalog, inputs.split.test)
    return [states, vectors, torch.from_numpy(metrics.ranks).float()]


def semantic_ids(inputs: Inputs, compute: Compute) -> list[Tensor]:
    """Log-likelihoods of lists that are decoded from semantic ids."""
    from finetune.recommender import Recommender
    from finetune.semantic_ids.config import SemanticIdConfig
    from finetune.semantic_ids.model import SemanticRecommender
    from finetune.semantic_ids.ranker import SemanticRanker
    from finetune.semantic_ids.trie import Trie
    from pretrain.sequence_encoder import new_sequence_encoder

    torch.manual_seed(0)
    number = inputs.catalog.num_items
    codes = np.stack([np.arange(number) // 6, np.arange(number) % 6], axis=1)
    history = new_sequence_encoder(inputs.pretraining.encoder.sequence, 16)
    trie = Trie(codes, [number // 6 + 1, 6])
    model = SemanticRecommender(Recommender(None, history), trie, torch.from_numpy(codes), 1)
    vectors = np.random.default_rng(0).normal(size=(number, 16)).astype(np.float32)
    ranker = SemanticRanker(
        compute.place(model),
        vectors,
        np.arange(number) % 5 > 0,
        SemanticIdConfig(codebook_size=6, num_levels=2, beam_size=4, num_cold_candidates=2),
        precision=compute.precision,
    )
    scores = [score for _, score in ranker.rank(inputs.catalog.interactions.history(0), 4)]
    return [torch.tensor(scores)]


def text_decoding(inputs: Inputs, compute: Compute) -> list[Tensor]:
    """Likelihoods of texts and the logits of the next token, of two requests of unequal length."""
    from generate.text.config import WriteConfig
    from generate.text.prompts import Conditions
    from tests.generate.tiny_text import make_generator, random_vectors

    generator = compute.place(
        make_generator(num_style_tokens=1, num_history_items=2, max_prompt_tokens=16)
    )
    generator.precision = compute.precision
    conditions = Conditions(
        random_vectors(2), random_vectors(2, seed=1), ["soft", "bold and loud"], ["a hat", "wool"]
    )
    nll, counts = generator.text_nll(conditions, "review", ["soft wool", "bold"])
    config = WriteConfig(max_tokens=3)
    generator.write(conditions, "review", seeds=[0, 1], config=config)
    decoder = generator.decoder()
    for request in generator.requests(conditions, "review", seeds=[0, 1], config=config):
        decoder.submit(request)
    decoder.step()
    return [nll, counts.float(), decoder.logits]


def image_sampling(inputs: Inputs, compute: Compute) -> list[Tensor]:
    """Pixels of a sampled image, with every condition."""
    from generate.image.codec import PatchCodec
    from generate.image.config import SamplingConfig
    from generate.image.denoiser import build_denoiser
    from generate.image.pipeline import PersonalImagePipeline
    from generate.image.run import build_conditioner
    from generate.image.structure import CHANNELS
    from tests.generate.image_world import TINY, WIDTH

    torch.manual_seed(0)
    codec = PatchCodec(8, 8, 0, [[16, 16]])
    torch.nn.init.normal_(codec.basis)
    denoiser = build_denoiser(TINY)
    torch.nn.init.normal_(denoiser.proj_out.weight)
    pipeline = PersonalImagePipeline(build_conditioner(TINY, WIDTH), denoiser, codec)
    pipeline.place(compute)
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(2, 2, WIDTH, generator=generator)
    structures = torch.ones(2, CHANNELS, 2, 2)
    config = SamplingConfig(steps=2, structure_guidance_scale=1.0)
    images = pipeline(users, items, [0, 1], config, structures)
    return [torch.from_numpy(np.array(image)).float() for image in images]


STAGES: dict[str, Callable[[Inputs, Compute], list[Tensor]]] = {
    stage.__name__: stage
    for stage in (
        pretraining,
        finetuning,
        sampled_softmax,
        embedding,
        ranking,
        semantic_ids,
        text_decoding,
        image_sampling,
    )
}


def run(stage: str, inputs: Inputs, compute: Compute) -> dict[str, Any]:
    """The stage there: its `values`, `products` and the `error`, or None."""
    values, error = [], None
    with StandIn() as mode:
        try:
            values = [value.float().cpu() for value in STAGES[stage](inputs, compute)]
        except (RuntimeError, TypeError) as mixed:
            error = " ".join(str(mixed).split())[:300]
            traceback.print_exc()
    products = {" ".join(key): number for key, number in mode.products.items()}
    return {"values": values, "products": products, "error": error}


def main(folder: Path) -> None:
    device = register()
    inputs = make_inputs(folder)
    found: dict[str, Any] = {}
    for stage in sys.argv[2:] or STAGES:
        expected = run(stage, inputs, on_cpu())
        there = run(stage, inputs, Compute(device))
        half = run(stage, inputs, Compute(device, "bf16-true"))
        mixed = run(stage, inputs, Compute(torch.device("cpu"), "bf16-mixed"))
        pairs = zip(there["values"], expected["values"], strict=False)
        found[stage] = {
            "errors": [each["error"] for each in (expected, there, half, mixed)],
            "difference": max((float((a - b).abs().max()) for a, b in pairs), default=None),
            "32-true": there["products"],
            "bf16-true": half["products"],
            "bf16-mixed": mixed["products"],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
