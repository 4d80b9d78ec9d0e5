"""The encoder's model card for the Hugging Face Hub, written from its manifest."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData


def encoder_card(name: str, manifest: Mapping[str, Any]) -> str:
    """The model card of an encoder; `name` is that of the folder, and most likely of the repository."""
    config, metrics = manifest["config"], manifest["metrics"]
    towers = [kind for kind in ("text", "image") if config["encoder"][kind] is not None]
    retrieval = {
        line.removeprefix("retrieval/"): figures
        for line, figures in metrics.items()
        if line.startswith("retrieval/")
    }
    modalities = ", ".join([*towers, *config["encoder"]["extra_modalities"]])
    width = config["encoder"]["width"]
    head = front_matter(name, "feature-extraction", ["item-encoder", "recommendation"], [])
    results = [
        f"- {line}: R@10 is {figures['R@10']:.1%} over {figures['queries']:,} queries and "
        f"{figures['candidates']:,} candidates; by chance {figures['chance R@10']:.1%}"
        for line, figures in retrieval.items()
        if figures["R@10"] is not None
    ]
    return f"""{head}
# {name}

Turns what an item of a shop has ({modalities}) into one vector of width {width}. An item \
may lack any of it. Pretrained with Vitrine: \
{metrics["steps"]:,} steps, {metrics["parameters"]:,} parameters.

## Load it

```python
from pretrain import ItemEncoder

encoder = ItemEncoder.from_pretrained("{name}")  # this folder, or USER/{name} on the Hub
```

With the command, a whole catalog is turned into vectors, or a recommender is fitted to one:

```sh
vitrine embed --encoder {name} --catalog.path FOLDER --output vectors
vitrine finetune --encoder hub:USER/{name} --catalog.path FOLDER --output recommender
```

## Retrieval

Measured on items and interactions held out of training:

{chr(10).join(results) or "- not measured: nothing was held out of training"}

{ABOUT_FILES}
"""


ABOUT_FILES = """## Its files

`manifest.json` holds every setting (paths included), what it was made from, and a checksum for each file
but this page; they are verified whenever it is opened. No file is a pickle."""


def front_matter(name: str, pipeline_tag: str, tags: list[str], results: list[EvalResult]) -> str:
    """The card's metadata, between its two lines of dashes."""
    data = ModelCardData(
        library_name="vitrine",
        pipeline_tag=pipeline_tag,
        tags=["vitrine", *tags],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"
