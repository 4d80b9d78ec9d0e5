"""The RQ-VAE (Lee et al., 2022), the tokenizer of TIGER (Rajput et al., 2023): residual quantisation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalog.progress import track
from finetune.semantic_ids.kmeans import SAMPLE, assign, kmeans

BATCH = 1024
LATENT = 32
WARMUP_SHARE = 0.2
"""Share of the steps without quantisation, before k-means initialises the codebooks."""
COMMITMENT = 0.25
"""Weight β of the commitment loss, which draws a vector to its code."""
REVIVE_EVERY = 100
"""Steps within which an unused code is revived."""
LEARNING_RATE = 1e-3
CHUNK = 65_536


class RqVae(nn.Module):
    """Encoder, codebooks and decoder; each level quantises the residual of the levels before it."""

    def __init__(self, width: int, levels: int, num_codes: int) -> None:
        super().__init__()
        latent = min(LATENT, width)
        self.encoder = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.GELU(), nn.Linear(width, width))
        self.codebooks = nn.Parameter(torch.zeros(levels, num_codes, latent))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstruction of `vectors` (n, width), codes int64 (n, levels), and the residuals before each
        level (n, levels, latent)."""
        latents = self.encoder(vectors)
        residuals, codes, residuals_per_level = latents, [], []
        for book in self.codebooks:
            nearest, _ = assign(residuals.detach(), book.detach())
            codes.append(nearest)
            residuals_per_level.append(residuals)
            residuals = (
                residuals - book[nearest].detach()
            )  # the gradient of a code is that of its own level
        quantised = latents - residuals
        through = latents + (quantised - latents).detach()  # straight-through gradient
        return (
            self.decoder(through),
            torch.stack(codes, dim=1),
            torch.stack(residuals_per_level, dim=1),
        )

    def loss(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean over items of ‖x − x̂‖² + Σ ‖sg(r) − e‖² + β ‖r − sg(e)‖²; codes; residuals."""
        rebuilt, codes, residuals_per_level = self(vectors)
        levels = torch.arange(codes.shape[1], device=codes.device)
        chosen = self.codebooks[levels, codes]
        to_codes = (residuals_per_level.detach() - chosen).square().sum(dim=(1, 2))
        commitment = (residuals_per_level - chosen.detach()).square().sum(dim=(1, 2))
        error = (rebuilt - vectors).square().sum(dim=1)
        return (
            (error + to_codes + COMMITMENT * commitment).mean(),
            codes,
            residuals_per_level.detach(),
        )

    def plain_loss(self, vectors: Tensor) -> Tensor:
        """‖x − x̂‖² without codes between."""
        return (self.decoder(self.encoder(vectors)) - vectors).square().sum(dim=1).mean()

    @torch.no_grad()
    def initialize_codebooks(self, vectors: Tensor, seed: int) -> None:
        """Initialises the codebooks by k-means of the encoder's residuals."""
        residuals = self.encoder(vectors)
        for level, book in enumerate(self.codebooks):
            book.copy_(kmeans(residuals, len(book), seed + level))
            residuals = residuals - book[assign(residuals, book)[0]]

    @torch.no_grad()
    def revive(self, used: Tensor, residuals_per_level: Tensor, generator: torch.Generator) -> None:
        """Moves codes not `used`, bool (levels, codes), onto residuals of random items (n, …)."""
        for level, book in enumerate(self.codebooks):
            dead = (~used[level]).nonzero().squeeze(1)
            drawn = torch.randint(len(residuals_per_level), (len(dead),), generator=generator).to(
                book.device
            )
            book[dead] = residuals_per_level[drawn, level]


@dataclass(frozen=True)
class RqVaeFit:
    """How an RQ-VAE is fitted."""

    levels: int
    num_codes: int
    seed: int
    steps: int
    progress: bool = False


def fit_rq_vae(
    vectors: Tensor, settings: RqVaeFit, learned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes of `vectors` (n, width), int64 (n, levels), and their reconstruction errors ‖x − x̂‖², (n,).

    Fitted to `learned` (m, width), by default to all vectors.
    """
    levels, num_codes, seed = settings.levels, settings.num_codes, settings.seed
    steps = settings.steps
    torch.manual_seed(seed)
    learned = vectors if learned is None else learned
    scale = learned.std().clamp(min=1e-6)  # about unit variance
    vectors, learned = vectors / scale, learned / scale
    generator = torch.Generator().manual_seed(seed)
    model = RqVae(vectors.shape[1], levels, num_codes).to(vectors.device)
    few = torch.randperm(len(learned), generator=generator)[: SAMPLE * num_codes]
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)

    def draw() -> Tensor:
        drawn = torch.randint(len(learned), (min(BATCH, len(learned)),), generator=generator)
        return learned[drawn.to(learned.device)]

    begin_at = round(WARMUP_SHARE * steps) + 1
    used = torch.zeros(levels, num_codes, dtype=torch.bool, device=vectors.device)
    for step in track(range(1, steps + 1), "Fitting the RQ-VAE", shown=settings.progress):
        if step < begin_at:
            loss = model.plain_loss(draw())
        else:
            if step == begin_at:
                model.initialize_codebooks(learned[few.to(learned.device)], seed)
            loss, codes, residuals_per_level = model.loss(draw())
            used |= F.one_hot(codes, num_codes).bool().any(dim=0)
            if (step - begin_at) % REVIVE_EVERY == REVIVE_EVERY - 1:
                # A code that is revived at the very end would not be trained any more.
                if step < steps - REVIVE_EVERY:
                    model.revive(used, residuals_per_level, generator)
                used.zero_()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    all_codes, errors = [], []
    with torch.no_grad():
        for part in vectors.split(CHUNK):
            rebuilt, codes, _ = model(part)
            all_codes.append(codes)
            errors.append((rebuilt - part).square().sum(dim=1))
    return torch.cat(all_codes), torch.cat(errors) * scale.square()
