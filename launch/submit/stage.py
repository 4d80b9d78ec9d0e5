"""Reads the job to start: the stage's own settings, how many devices, and the runs of a sweep.

The stage's arguments go through its own parser here, so that a mistake in them is reported
before anything waits in a queue.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from catalog.errors import VitrineError, did_you_mean
from launch.arguments import Signature, parse_arguments
from launch.cli import load_command
from launch.settings import field_types
from launch.submit.config import Job, LaunchOptions
from pretrain.config import TrainerConfig
from pretrain.devices import check_device_name

STAGES = ("pretrain", "finetune", "embed", "compare", "train text", "train image", "run")
ONE_PROCESS = ("compare", "run")
"""Stages that are several, one after the other, in one process."""
LONGEST_NAME = 40
"""Kubernetes makes host names of it, which may have 63 letters."""


def read_job(options: LaunchOptions, rest: list[str]) -> Job:
    """The job that `vitrine launch` starts; VitrineError for any error in its stage."""
    stage, arguments = find_stage(options.stage, rest)
    name = _name(options, stage)
    parsed = _parse(stage, arguments)
    trainers = dict(trainers_in(parsed.get("settings")))
    nodes, devices = _size(options, stage, trainers)
    for key, trainer in trainers.items():
        overrides: dict[str, object] = {"nodes": nodes, "devices": devices}
        if options.cpu:
            overrides["accelerator"] = "cpu"
        for field, value in overrides.items():
            if getattr(trainer, field) != value:
                arguments += [f"--{key}.{field}", str(value)]
    if options.cpu and not trainers:
        arguments += ["--device", "cpu"]
    runs = [arguments]
    if options.array:
        runs = _sweep(options.array, arguments, parsed["options"].output, list(trainers))
    for run in runs:
        _parse(stage, run)
    return Job(
        name=name,
        runs=tuple((*stage.split(), *run) for run in runs),
        nodes=nodes,
        devices=devices,
        gpus=not (options.cpu or _on_cpu(parsed["options"], list(trainers.values()))),
        cpus=_positive("cpus", options.cpus),
        restarts=options.restarts,
    )


def _on_cpu(options: Any, trainers: list[TrainerConfig]) -> bool:
    """Whether the stage needs no GPU; VitrineError for a device that is none."""
    asked = getattr(options, "device", "auto")
    for device in (asked, *(trainer.device for trainer in trainers)):
        check_device_name(device)
    own = [{trainer.device, trainer.accelerator} for trainer in trainers]
    return asked == "cpu" or (bool(own) and all("cpu" in names for names in own))


def find_stage(word: str, rest: list[str]) -> tuple[str, list[str]]:
    """`train-text …` or `train text …` → (`train text`, what follows it)."""
    for stage, following in (
        (word.replace("-", " "), rest),
        (" ".join([word, *rest[:1]]), rest[1:]),
    ):
        if stage in STAGES:
            return stage, list(following)
    names = [stage.replace(" ", "-") for stage in STAGES]
    raise VitrineError(
        f"'{word}' is no stage that can be launched; it takes one of {', '.join(names)}."
    )


def trainers_in(settings: Any, prefix: str = "") -> Iterator[tuple[str, TrainerConfig]]:
    """Every trainer below some settings, by its dotted key."""
    if not is_dataclass(settings):
        return
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, TrainerConfig):
            yield f"{prefix}{field.name}", value
        else:
            yield from trainers_in(value, f"{prefix}{field.name}.")


def _parse(stage: str, arguments: list[str]) -> dict[str, Any]:
    signature = Signature.of(load_command(stage))
    known = [*field_types(signature.options), "config"]
    if signature.settings is not None:
        known += field_types(signature.settings)
    for argument in arguments:
        key = argument.removeprefix("--").partition("=")[0].split(".")[0]
        if argument.startswith("--") and key.replace("-", "_") not in known:
            ours = [*known, *field_types(LaunchOptions)]
            hint = did_you_mean(f"--{key}", [f"--{name}" for name in ours])
            raise VitrineError(f"neither launch nor {stage} has an option '--{key}'.{hint}")
    return parse_arguments(signature, arguments)


def _name(options: LaunchOptions, stage: str) -> str:
    name = options.name or f"vitrine-{stage.replace(' ', '-')}"
    # A label of DNS (RFC 1035), the narrowest that Kubernetes asks for anywhere.
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > LONGEST_NAME:
        raise VitrineError(
            f"--name {name!r} becomes part of host names: at most {LONGEST_NAME} small letters, digits "
            "and hyphens, a letter first and no hyphen last; try --name my-run."
        )
    return name


def _size(
    options: LaunchOptions, stage: str, trainers: dict[str, TrainerConfig]
) -> tuple[int, int]:
    """Nodes and devices: as the options say, else as the settings do."""
    sizes = {(trainer.nodes, trainer.devices) for trainer in trainers.values()} or {(1, 1)}
    if len(sizes) > 1 and not (options.nodes and options.devices):
        raise VitrineError(
            f"{' and '.join(trainers)} ask for different numbers of devices; give --nodes and --devices."
        )
    nodes, devices = sizes.pop()
    nodes = _positive("nodes", options.nodes or nodes)
    devices = _positive("devices", options.devices or devices)
    if stage in ONE_PROCESS and nodes * devices > 1:
        raise VitrineError(
            f"{stage} is several stages one after the other in one process, and {nodes} × {devices} "
            "devices were requested; use 1, or launch its stages one by one."
        )
    return nodes, devices


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise VitrineError(f"--{name} is {value}; it takes at least 1.")
    return value


def _sweep(array: str, arguments: list[str], output: str, trainers: list[str]) -> list[list[str]]:
    """The arguments of each run; its own come last, so that they override the shared ones."""
    if array.isdecimal():
        if not trainers:
            raise VitrineError("--array as a number of seeds needs a stage that trains.")
        count = _positive("array", int(array))
        changes = [
            [word for key in trainers for word in (f"--{key}.seed", str(seed))]
            for seed in range(count)
        ]
    elif Path(array).is_file():
        try:
            lines = Path(array).read_text(encoding="utf-8").splitlines()
            changes = [words for line in lines if (words := shlex.split(line, comments=True))]
        except ValueError as error:  # not UTF-8; a quotation mark without its second
            raise VitrineError(
                f"--array {array} cannot be read: {error}; write the settings of one run on a line."
            ) from error
        if not changes:
            raise VitrineError(
                f"--array {array} is empty; write the settings of one run on a line."
            )
    else:
        raise VitrineError(
            f"--array {array!r} is neither a number of seeds nor a file with the settings of one run "
            "on each line."
        )
    return [
        [*arguments, "--output", f"{output}-{number}", *change]
        for number, change in enumerate(changes)
    ]
