"""Checks that the settings of fine-tuning do not contradict each other."""

from catalog.errors import VitrineError
from finetune.config import FinetuneConfig
from finetune.missing_modality import check_missing_modality
from finetune.transfer import without_towers


def check_config(config: FinetuneConfig) -> None:
    """Raises VitrineError for settings that contradict each other."""
    check_missing_modality(config)
    if config.bag_of_words and (config.features == "random" or config.transfer == "zero-shot"):
        mode = "random" if config.features == "random" else "zero-shot"
        rule = "is a control without item content" if mode == "random" else "trains nothing"
        raise VitrineError(f"'{mode}' {rule}, but --bag_of_words learns embeddings; leave it out")
    if config.bag_of_words and config.modalities and "text" not in config.modalities.split(","):
        raise VitrineError(
            f"modalities '{config.modalities}' leaves out the text that --bag_of_words reads; leave out one"
        )
    if config.data.refresh_every < 0:
        raise VitrineError(f"data.refresh_every is {config.data.refresh_every}; give 0 or more")
    if config.vectors and (config.modalities or config.transfer == "scratch"):
        other = (
            f"modalities is '{config.modalities}'" if config.modalities else "transfer is 'scratch'"
        )
        raise VitrineError(
            f"vectors {config.vectors} were embedded by the whole pretrained encoder, but {other}; leave "
            "out --vectors"
        )
    if without_towers(config.features) and config.transfer != "scratch":
        raise VitrineError(
            f"features '{config.features}' have no towers to transfer, but transfer is "
            f"'{config.transfer}'; use --transfer scratch"
        )
