"""The request of a stage: those of its settings that decide the result, and their hash.

Paths, the number of devices and the frequency of logging do not decide it; the content of the catalog and of
parent artifacts does.
"""

from collections.abc import Mapping
from typing import Any

from catalog.artifacts import StrPath, request_hash

PATH_SETTINGS = {"encoder", "generator", "image", "recommender", "text", "vectors"}
"""Settings that may be the path of an artifact. Artifacts are compared by their hashes, as parents, and
vectors by the hashes of their encoder and catalog."""
RUNTIME_ONLY_SETTINGS = {
    "": {"workers", "sample_every"},
    "catalog": {"path"},
    "data": {"workers", "num_micro_batches", "activation_checkpointing", "compile", "max_broken"},
    "sampling": {"offload"},
    "trainer": {
        "accelerator",
        "async_checkpoint",
        "checkpoint_every",
        "checkpoint_keep",
        "device",
        "devices",
        "max_nonfinite_steps",
        "hang_timeout",
        "log_every",
        "log_to",
        "nodes",
        "progress",
        "strategy",
    },
}
"""Settings, by section, that affect how a run is executed or where files are, but not the result. A catalog
is compared by its fingerprint."""


def result_request(
    kind: str,
    settings: Mapping[str, Any],
    parents: Mapping[str, StrPath] | None = None,
    catalog: str = "",
) -> str:
    """The `request_hash` of the settings that decide the result: equal for requests of the same result."""
    return request_hash(kind, result_settings(settings), parents, catalog)


def result_settings(settings: Mapping[str, Any], devices: int = 0) -> dict[str, Any]:
    """A copy of the settings without those of `RUNTIME_ONLY_SETTINGS`.

    Its batch size is the global one, of `devices` or else of the devices in the settings.
    """
    kept = {
        name: value for name, value in settings.items() if name not in RUNTIME_ONLY_SETTINGS[""]
    }
    for section in kept.keys() & RUNTIME_ONLY_SETTINGS.keys():
        runtime_only = RUNTIME_ONLY_SETTINGS[section]
        kept[section] = {n: v for n, v in kept[section].items() if n not in runtime_only}
    for name in PATH_SETTINGS & kept.keys():
        if isinstance(kept[name], str):
            kept[name] = bool(kept[name])
    if trainer := settings.get("trainer"):
        devices = devices or trainer["devices"] * trainer["nodes"]
        if "rows" in kept.get("data", ()):
            kept["data"]["rows"] *= devices
        elif "batch_size" in kept:
            kept["batch_size"] *= devices
    return kept
