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
"""Of low-rank updates, and of towers that begin untrained."""
MAX_FULL_SOFTMAX = 200_000
"""Items up to which `loss: auto` is the full softmax."""
FULL_TOWER_RATE = 0.005
"""Of pretrained weights: at four times this rate a pretrained text tower already ranked worse than a
frozen one (`benchmarks/transfer.py`)."""


@dataclass(frozen=True)
class EncoderLearning:
    """How fast the encoder learns beside the rest (discriminative rates; Howard and Ruder, 2018)."""

    tower_rate: float = TOWER_RATE
    """Share of the learning rate for the towers."""
    projection_rate: float = TOWER_RATE
    """Share of the learning rate for projections and fusion."""
    warmup: float = 0.0
    """Share of the steps in which all of them stand still."""


@dataclass(frozen=True)
class LoraConfig:
    rank: NonNegativeInt = 8
    """Rank r of the update B A."""
    alpha: PositiveInt = 32
    """The update is scaled by alpha / r."""
    dropout: FractionBelowOne = 0.0
    """On the adapter's input."""
    target_encoders: str = ""
    """What has low-rank updates, with commas between: the encoder's modalities (text,image), for
    their towers, and reader, for what reads histories; empty: all of them. Towers without any stand
    still, and read each item once."""
    target_modules: str = ""
    """The linear layers that have them, with commas between, by the ends of their names
    (query,value or attention.output.dense); empty: all."""


Imputation = Literal["mask", "drop", "zeros", "mean", "neighbours", "multi-hop", "pagerank"]


@dataclass(frozen=True)
class MissingModalityConfig:
    percent: Percent = 0.0
    """Of the items, drawn at random, that lose a modality: how well does a shop do without?"""
    modality: str = "image"
    """What they lose."""
    imputation: Imputation = "mask"
    """What is done about it: masked in the fusion (mask), such items in no training row (drop), or
    something put in its place: nothing said by the tower (zeros), the mean of all, of those taken
    with the item (neighbours), over several hops (multi-hop), or by personalised PageRank."""
    hops: PositiveInt = 3
    """Of multi-hop."""
    restart: Fraction = 0.15
    """PageRank's chance to start again."""


@dataclass(frozen=True)
class ItemKNNConfig:
    k: PositiveInt | None = None
    """Neighbours kept of each item; null: whichever of 20, 50, 100, 200 and 500 ranks validation best."""
    shrink: NonNegativeFloat | None = None
    """Added to a cosine's denominator, so that one of few users counts for less; null: whichever of 0,
    10, 30 and 100 ranks validation best."""


@dataclass(frozen=True)
class MatrixFactorizationConfig:
    width: PositiveInt = 64
    """Width of the vectors of users and items, and in vbpr also of tastes."""
    batch_size: PositiveInt = 4096
    """Triples of a user, an item they took and one they did not, in one step on each device."""
    learning_rate: PositiveFloat = 0.01
    """Adam's, the same in every step."""
    regularization: NonNegativeFloat = 0.01
    """Weight of the squares of all that a triple reads of users and items."""
    ema_decay: FractionBelowOne = 0.99
    """Decay of the moving average of the weights that is judged and kept."""
    validate_every_epochs: PositiveInt = 5
    """Passes over the training interactions between two looks at the validation targets."""
    patience: PositiveInt = 5
    """Looks without a better one after which training ends."""
    max_epochs: PositiveInt = 500
    """Passes after which it ends at the latest, or without validation targets."""


@dataclass(frozen=True)
class FinetuneDataConfig:
    rows: PositiveInt = 32
    """Packed rows of histories in one step on each device; a row holds `max_history` items."""
    encode_items: PositiveInt = 96
    """Items read through the towers with gradient in one step; the rest come from the vector cache."""
    refresh_every: NonNegativeInt = 0
    """Steps between two readings of all items through the towers, where these learn; 0: they are read
    anew only where validation targets are looked at."""
    workers: NonNegativeInt = 0
    """Loader processes."""


@dataclass(frozen=True)
class FinetuneConfig:
    encoder: str = ""
    """Folder of an encoder artifact; may stay empty where features are `id` or `random`."""
    catalog: CatalogConfig = field(default_factory=CatalogConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    transfer: Transfer = "lora"
    """What is trained: everything anew, nothing, only what reads histories, low-rank updates, or all."""
    features: Features = "content"
    """What stands for an item: its content; content and an id vector; whichever of both ranks
    validation targets better, each trained (auto); or a control."""
    bag_of_words: bool = False
    """Each word of the items' texts has a learned vector, too, of which an item has the sum (LightFM);
    added to its id's, where it has one."""
    id_width: NonNegativeInt = 0
    """How many dimensions ids and words have beside the content's; 0: they are added to it."""
    modalities: str = ""
    """The encoder's modalities that are read, with commas between; empty: all."""
    content_statistics: Literal["catalog", "trained"] = "catalog"
    """Whose content whitening, the vocabulary of `words` and the codes of semantic ids are computed from:
    all items (no interaction held out is read, but items nobody took before the split's cut are), or
    the items taken in training."""
    vectors: str = ""
    """Folder of vectors that `vitrine embed` made of this catalog with this encoder, to begin from
    them; empty: the towers read every item once more."""
    missing_modality: MissingModalityConfig = field(default_factory=MissingModalityConfig)
    """A study of items that lack a modality."""
    allow_seen: bool = False
    """Evaluate also on interactions the encoder was pretrained on; such figures prove nothing."""
    loss: Loss = "auto"
    """What the next item is told from: every item (softmax), the batch's targets and `negatives`
    drawn ones (sampled), the batch's targets alone; auto: softmax up to 200,000 items, then sampled."""
    negatives: PositiveInt = 8192
    """Items drawn for each step of the sampled loss."""
    sequence: SequenceConfig | None = None
    """What reads histories, untrained; null: the reader that was pretrained with the encoder."""
    width: PositiveInt = 64
    """Width d of vectors and states where there is no encoder."""
    dropout: FractionBelowOne | None = None
    """In the reader of histories; null: what it was pretrained with."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    tower_rate: NonNegativeFloat | None = None
    """Share of the learning rate at which the towers learn; null: 0.005 for pretrained weights trained
    whole (transfer full), 0.2 for low-rank updates and for towers that begin untrained."""
    projection_rate: NonNegativeFloat = 0.2
    """Share of the learning rate at which the encoder's projections and fusion learn."""
    encoder_warmup: FractionBelowOne = 0.2
    """Transfer full only: share of the steps in which the pretrained encoder stands still, so that what
    is new learns first."""
    alignment: NonNegativeFloat = 0.3
    """Weight of InfoNCE between the modalities of the items read in a step, where towers learn."""
    semantic_ids: SemanticIdConfig = field(default_factory=SemanticIdConfig)
    """Where the model is `semantic-ids`: how items become codes, and codes lists."""
    validate_every: PositiveInt = 100
    """Steps between two looks at the validation targets; the best weights are kept."""
    validation_users: PositiveInt = 2000
    """At most this many people are looked at each time."""
    item_knn: ItemKNNConfig = field(default_factory=ItemKNNConfig)
    """The baseline item-knn only."""
    matrix_factorization: MatrixFactorizationConfig = field(
        default_factory=MatrixFactorizationConfig
    )
    """The baselines bpr-mf and vbpr only: they are trained until validation stops improving, whatever
    the trainer's steps and the optimiser's settings are."""

    def num_negatives(self, num_items: int) -> int | None:
        """Negatives sampled in each step; None for the full softmax over the catalog."""
        if self.loss == "softmax" or (self.loss == "auto" and num_items <= MAX_FULL_SOFTMAX):
            return None
        return 0 if self.loss == "in-batch" else self.negatives

    @property
    def encoder_learning(self) -> EncoderLearning:
        """The rates and the warm-up that the transfer mode gives the encoder."""
        full = self.transfer == "full"
        default = FULL_TOWER_RATE if full else TOWER_RATE
        return EncoderLearning(
            tower_rate=default if self.tower_rate is None else self.tower_rate,
            projection_rate=self.projection_rate,
            warmup=self.encoder_warmup if full else 0.0,
        )


@dataclass(frozen=True)
class ArmConfig:
    """One way to recommend among several: what it does otherwise than the settings all share."""

    model: Model = "vitrine"
    """A recommender of ours, by dense vectors (vitrine) or by semantic ids, or a baseline."""
    transfer: Transfer = "lora"
    """See FinetuneConfig."""
    features: Features = "content"
    """See FinetuneConfig."""
    modalities: str = ""
    """See FinetuneConfig."""
    bag_of_words: bool = False
    """See FinetuneConfig."""
    missing_percent: Percent = 0.0
    """Percent of the items that lose a modality; see MissingModalityConfig."""
    imputation: Imputation = "mask"
    """See MissingModalityConfig."""
    learning_rate: NonNegativeFloat = 0.0
    """Overrules fine-tuning's where it is not 0."""
    tower_rate: NonNegativeFloat = 0.0
    """Overrules fine-tuning's where it is not 0."""
    steps: NonNegativeInt = 0
    """Overrules fine-tuning's where it is not 0; the baselines read no steps."""
    description: str = ""
    """What this arm is, in a few words."""

    @property
    def kind(self) -> str:
        """Of the artifact that it becomes."""
        return {"vitrine": "recommender", "semantic-ids": "semantic-ids"}.get(
            self.model, "baseline"
        )

    @property
    def reads_all_content(self) -> bool:
        """Whether it starts from what the pretrained encoder makes of every item's whole content."""
        if self.model == "vbpr":
            return True
        if self.model not in ("vitrine", "semantic-ids") or self.features in ("id", "random"):
            return False
        return self.transfer != "scratch" and not self.modalities and not self.missing_percent

    def settings(self, common: FinetuneConfig) -> FinetuneConfig:
        """`common` as this arm has it."""
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
