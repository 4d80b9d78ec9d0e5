"""The model card of a recommender for the Hugging Face Hub, from its manifest."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult

from catalog.config import CatalogConfig
from finetune.transfer import has_own_encoder, without_towers
from pretrain.model_card import ABOUT_FILES, front_matter

METRIC_NAMES = {
    "test/ndcg@10": "NDCG@10",
    "test/recall@10": "Recall@10",
    "test/mrr": "MRR",
    "popularity/ndcg@10": "NDCG@10 of popularity",
}


def recommender_card(name: str, manifest: Mapping[str, Any]) -> str:
    """The model card; `name` is that of the folder, and most likely of the repository."""
    config, metrics = manifest["config"], manifest["metrics"]
    shop = _catalog_name(config["catalog"])
    results = [
        EvalResult(
            task_type="recommendation",
            dataset_type=shop,
            dataset_name=shop,
            dataset_split="test",
            metric_type=metric.partition("/")[2],
            metric_name=label,
            metric_value=round(metrics[metric], 4),
        )
        for metric, label in METRIC_NAMES.items()
        if metric.startswith("test/") and metrics.get(metric) is not None
    ]
    tags = ["recommendation", "sequential-recommendation", config["transfer"]]
    head = front_matter(name, "other", tags, results)
    return f"""{head}
# {name}

Ranks the items of the shop *{shop}* that a user is likely to want next, from their history. Fitted with \
Vitrine: items are represented by features `{config["features"]}`, transfer is `{config["transfer"]}`.

## Load it

```python
{_loading(name, config, manifest["parents"])}
```

The paths are those of this folder, of the shop's catalog, and of the encoder it was fitted on, where it \
needs one; a recommender or an encoder on the Hub is `hub:USER/NAME`. Or with the command: \
`vitrine recommend {name} --history ITEM,ITEM`.

## How well it ranks

{_figures(manifest["split"] or {}, metrics)}

{ABOUT_FILES}
"""


def _loading(name: str, config: Mapping[str, Any], parents: Mapping[str, Mapping[str, str]]) -> str:
    defaults = asdict(CatalogConfig())
    changed = {key: value for key, value in config["catalog"].items() if value != defaults.get(key)}
    changed["path"] = _catalog_name(config["catalog"])
    settings = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    encoder = ""
    if not (has_own_encoder(config["transfer"]) or without_towers(config["features"])):
        encoder = f', encoder="{PurePath(parents["encoder"]["path"]).name}"'
    return f"""from catalog import CatalogConfig, load_catalog
from finetune import load_ranker

ranker = load_ranker("{name}", load_catalog(CatalogConfig({settings})){encoder})"""


def _catalog_name(settings: Mapping[str, Any]) -> str:
    """The catalog's folder name without its path, which is private; a dataset's name is kept whole."""
    path = settings["path"]
    return path if settings["source"] == "huggingface" else PurePath(path).name


def _figures(split: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    if "added" in metrics:
        return (
            f"Not measured: it was extended to a newer catalog. {metrics['kept']:,} items are "
            f"unchanged, {metrics['added']:,} were added by their content, {metrics['removed']:,} removed."
        )
    lines = [
        f"Of {metrics['test/users']:,.0f} test targets (split `{split['kind']}`), each ranked among all "
        "items of the shop:",
        "",
        *(
            f"- {label}: {metrics[metric]:.4f}"
            for metric, label in METRIC_NAMES.items()
            if metrics.get(metric) is not None
        ),
    ]
    low, high = metrics["test/ndcg@10_low"], metrics["test/ndcg@10_high"]
    if low is not None and high is not None:
        lines.append(f"- 95 % interval of NDCG@10, over users: {low:.4f} to {high:.4f}")
    if metrics["seen_targets"]:
        lines.append(
            f"- the encoder was pretrained on {metrics['seen_targets']:,} of the targets: the figures "
            "prove nothing"
        )
    return "\n".join(lines)
