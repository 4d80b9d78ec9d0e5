"""Settings of fine-tuning a recommender on one domain; imports no torch."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from catalog.config import (
    Bounds,
    CatalogConfig,
    Fraction,
    FractionBelowOne,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SplitConfig,
)
from finetune.semantic_ids.config import SemanticIdConfig
from pretrain.config import OptimizerConfig, SequenceConfig, TrainerConfig

Percent = Annotated[float, Bounds(0, 100, high_open=True)]
Transfer = Literal["scratch", "zero-shot", "frozen", "lora", "full"]
Loss = Literal["auto", "softmax", "sampled", "in-batch"]
Features = Literal["content", "content+id", "auto", "shuffled", "random", "id"]


Model = Literal["vitrine", "popularity", "item-knn", "bpr-mf", "vbpr", "semantic-ids"]

TOWER_RATE = 0.2
"""Learning rate factor of towers with LoRA, and of untrained towers."""
MAX_FULL_SOFTMAX = 200_000
"""Items up to which `loss: auto` is the full softmax."""
FULL_TOWER_RATE = 0.005
"""Learning rate factor of pretrained towers in full fine-tuning: at four times this factor a pretrained
text tower already ranked worse than a frozen one (`benchmarks/transfer.py`)."""


@dataclass(frozen=True)
class EncoderLearning:
    """Discriminative learning rates of the item encoder (Howard and Ruder, 2018)."""

    tower_rate: float = TOWER_RATE
    """Learning rate factor of the towers."""
    projection_rate: float = TOWER_RATE
    """Learning rate factor of projections and fusion."""
    warmup: float = 0.0
    """Share of the steps in which the encoder is frozen at first."""


@dataclass(frozen=True)
class LoraConfig:
    rank: NonNegativeInt = 8
    """Rank r of the update B A."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / r."""
    dropout: FractionBelowOne = 0.0
    """On the adapter's input."""
    target_encoders: str = ""
    """Encoders with low-rank updates, comma-separated: names of modalities (text,image) for their towers,
    and sequence for the sequence encoder; empty: all. Towers without any are frozen, and encode each
    item once."""
    target_modules: str = ""
    """Linear layers with low-rank updates, comma-separated suffixes of their names (query,value or
    attention.output.dense), as PEFT's `target_modules`; empty: all."""


Imputation = Literal["mask", "drop", "zeros", "mean", "neighbours", "multi-hop", "pagerank"]


@dataclass(frozen=True)
class MissingModalityConfig:
    percent: Percent = 0.0
    """Percent of the items, drawn at random, from which the modality is dropped; 0: no study."""
    modality: str = "image"
    """The modality that is dropped."""
    imputation: Imputation = "mask"
    """How it is handled: masked in the fusion (mask), items without it left out of training (drop), or
    imputed: by a zero tower output (zeros), the mean of all items (mean), of items bought together
    with it (neighbours), over several hops (multi-hop), or by personalised PageRank (pagerank)."""
    hops: PositiveInt = 3
    """Hops of multi-hop."""
    restart: Fraction = 0.15
    """Restart probability of pagerank."""


@dataclass(frozen=True)
class ItemKNNConfig:
    k: PositiveInt | None = None
    """Neighbours of each item; null: the best of 20, 50, 100, 200 and 500 on validation."""
    shrink: NonNegativeFloat | None = None
    """Shrinkage, added to the denominator of a cosine so that one of few users counts for less; null: the
    best of 0, 10, 30 and 100 on validation."""


@dataclass(frozen=True)
class MatrixFactorizationConfig:
    width: PositiveInt = 64
    """Embedding size of users and items, and in vbpr of the users' visual factors."""
    batch_size: PositiveInt = 4096
    """Triples of a user, a positive and a negative item, per step and device."""
    learning_rate: PositiveFloat = 0.01
    """Constant learning rate of Adam."""
    regularization: NonNegativeFloat = 0.01
    """Weight of the L2 penalty on the parameters that each triple reads."""
    ema_decay: FractionBelowOne = 0.99
    """Decay of the exponential moving average (EMA) of the weights, which is evaluated and stored."""
    validate_every_epochs: PositiveInt = 10
    """Epochs between two validations."""
    patience: PositiveInt = 10
    """Early stopping after this many validations without a better one."""
    max_epochs: PositiveInt = 1000
    """Epochs at most, and without validation targets."""


@dataclass(frozen=True)
class FinetuneDataConfig:
    rows: PositiveInt = 32
    """Packed rows of histories per step and device; a row holds `max_history` items."""
    encode_items: PositiveInt = 96
    """Items encoded with gradient per step; all others come from the cache of item embeddings."""
    refresh_every: NonNegativeInt = 0
    """Steps between two refreshes of the cache of item embeddings, if towers learn; 0: it is refreshed
    only for validation."""
    workers: NonNegativeInt = 0
    """Loader processes."""


@dataclass(frozen=True)
class FinetuneConfig:
    encoder: str = ""
    """Folder of an encoder artifact; may be empty if features are `id` or `random`."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    transfer: Transfer = "lora"
    """What is trained: all from scratch, nothing, the sequence encoder and head, LoRA, or all weights."""
    features: Features = "content"
    """Item representation: content; content and an id embedding; the better of both on validation, each
    trained (auto); or a control: shuffled content, random vectors, id embeddings alone."""
    bag_of_words: bool = False
    """Bag-of-words feature: an item also has the sum of the learned embeddings of its words (LightFM),
    added to its id embedding if it has one."""
    id_width: NonNegativeInt = 0
    """Dimensions of id and word embeddings concatenated to the content's; 0: they are added to it."""
    modalities: str = ""
    """The encoder's modalities that are used, comma-separated; empty: all."""
    content_statistics: Literal["catalog", "trained"] = "catalog"
    """Items whose content whitening, the vocabulary of `bag_of_words` and the codes of semantic ids are
    computed from: all of the catalog (also cold items, but no held-out interaction), or those with
    training interactions."""
    vectors: str = ""
    """Folder of item embeddings that `vitrine embed` computed for this catalog with this encoder; empty:
    the towers encode every item again."""
    missing_modality: MissingModalityConfig = field(default_factory=MissingModalityConfig)
    """A study of missing modalities."""
    allow_seen: bool = False
    """Evaluate also on interactions the encoder was pretrained on (leakage); such metrics prove nothing."""
    loss: Loss = "auto"
    """Full softmax over all items (softmax), sampled softmax over the batch's targets and `negatives`
    sampled items (sampled) or the targets alone (in-batch); auto: softmax up to 200,000 items."""
    negatives: PositiveInt = 8192
    """Negatives sampled in each step of the sampled softmax."""
    sequence: SequenceConfig | None = None
    """A new, untrained sequence encoder; null: the one pretrained with the item encoder."""
    width: PositiveInt = 64
    """Width d of item vectors and user states without an encoder."""
    dropout: FractionBelowOne | None = None
    """Dropout of the sequence encoder; null: that of its pretraining."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tower_rate: NonNegativeFloat | None = None
    """Learning rate factor of the towers; null: 0.005 for full fine-tuning of pretrained weights, 0.2 for
    LoRA and for untrained towers."""
    projection_rate: NonNegativeFloat = 0.2
    """Learning rate factor of the encoder's projections and fusion."""
    encoder_warmup: FractionBelowOne = 0.2
    """Transfer full only: share of the steps in which the pretrained encoder is frozen at first, while the
    new weights learn."""
    alignment: NonNegativeFloat = 0.3
    """Weight of the cross-modal InfoNCE of the items encoded in a step, if towers learn."""
    semantic_ids: SemanticIdConfig = field(default_factory=SemanticIdConfig)
    """The model semantic-ids only: tokenizer, decoder and beam search."""
    validate_every: PositiveInt = 100
    """Steps between two validations; the best weights are kept."""
    validation_users: PositiveInt = 2000
    """Users whose targets are ranked in each validation, at most."""
    item_knn: ItemKNNConfig = field(default_factory=ItemKNNConfig)
    """The baseline item-knn only."""
    matrix_factorization: MatrixFactorizationConfig = field(
        default_factory=MatrixFactorizationConfig
    )
    """The baselines bpr-mf and vbpr only: trained with early stopping, whatever the trainer's steps and the
    optimizer's settings are."""

    def num_negatives(self, num_items: int) -> int | None:
        """Negatives sampled in each step; None for the full softmax over the catalog."""
        if self.loss == "softmax" or (self.loss == "auto" and num_items <= MAX_FULL_SOFTMAX):
            return None
        return 0 if self.loss == "in-batch" else self.negatives

    @property
    def encoder_learning(self) -> EncoderLearning:
        """The encoder's learning rate factors and warm-up in this transfer mode."""
        full = self.transfer == "full"
        default = FULL_TOWER_RATE if full else TOWER_RATE
        return EncoderLearning(
            tower_rate=default if self.tower_rate is None else self.tower_rate,
            projection_rate=self.projection_rate,
            warmup=self.encoder_warmup if full else 0.0,
        )


@dataclass(frozen=True)
class ArmConfig:
    """One arm of a comparison: a model and what differs from the shared settings."""

    model: Model = "vitrine"
    """A recommender with dense vectors (vitrine) or semantic ids, or a baseline."""
    transfer: Transfer = "lora"
    """See FinetuneConfig."""
    features: Features = "content"
    """See FinetuneConfig."""
    modalities: str = ""
    """See FinetuneConfig."""
    bag_of_words: bool = False
    """See FinetuneConfig."""
    missing_percent: Percent = 0.0
    """Percent of the items from which a modality is dropped; see MissingModalityConfig."""
    imputation: Imputation = "mask"
    """See MissingModalityConfig."""
    learning_rate: NonNegativeFloat = 0.0
    """Overrides fine-tuning's if it is not 0."""
    tower_rate: NonNegativeFloat = 0.0
    """Overrides fine-tuning's if it is not 0."""
    steps: NonNegativeInt = 0
    """Overrides fine-tuning's if it is not 0; baselines ignore it."""
    description: str = ""
    """A short description of the arm, for the report."""

    @property
    def kind(self) -> str:
        """The kind of its artifact."""
        return {"vitrine": "recommender", "semantic-ids": "semantic-ids"}.get(
            self.model, "baseline"
        )

    @property
    def reads_all_content(self) -> bool:
        """Whether it starts from the pretrained embeddings of every item's whole content."""
        if self.model == "vbpr":
            return True
        if self.model not in ("vitrine", "semantic-ids") or self.features in ("id", "random"):
            return False
        return self.transfer != "scratch" and not self.modalities and not self.missing_percent

    def settings(self, common: FinetuneConfig) -> FinetuneConfig:
        """`common` with the settings of this arm."""
        optimizer, trainer = common.optimizer, common.trainer
        matrix_factorization = common.matrix_factorization
        if self.learning_rate:
            optimizer = replace(optimizer, learning_rate=self.learning_rate)
            matrix_factorization = replace(matrix_factorization, learning_rate=self.learning_rate)
        if self.steps:
            trainer = replace(trainer, max_steps=self.steps)
        return replace(
            common,
            transfer=self.transfer,
            features=self.features,
            modalities=self.modalities,
            bag_of_words=self.bag_of_words,
            vectors=common.vectors if self.reads_all_content else "",
            missing_modality=replace(
                common.missing_modality, percent=self.missing_percent, imputation=self.imputation
            ),
            tower_rate=self.tower_rate or common.tower_rate,
            optimizer=optimizer,
            trainer=trainer,
            matrix_factorization=matrix_factorization,
        )


@dataclass(frozen=True)
class IndexConfig:
    """An index for approximate nearest neighbour (ANN) search by faiss."""

    kind: Literal["flat", "hnsw", "ivf-pq"] = "hnsw"
    """Exact search; a graph of neighbours, all in memory; or inverted lists of product-quantised vectors."""
    m: PositiveInt = 32
    """hnsw only: neighbours linked to each item (M)."""
    ef_construction: PositiveInt = 200
    """hnsw only: candidates held while the graph is built (efConstruction)."""
    ef_search: NonNegativeInt = 0
    """hnsw only: candidates held during a search (efSearch); 0: by the number of items."""
    nlist: NonNegativeInt = 0
    """ivf-pq only: inverted lists; 0: four times the square root of the number of items."""
    nprobe: NonNegativeInt = 0
    """ivf-pq only: inverted lists searched; 0: by the number of lists."""
    num_users: PositiveInt = 1000
    """Users at most whose states measure the recall of the index."""
