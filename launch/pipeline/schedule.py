"""Which stage of a pipeline starts next; pure functions, which know no processes."""

from collections.abc import Collection, Mapping, Sequence

from launch.pipeline.stage import Stage


def prerequisites(stages: Sequence[Stage]) -> dict[str, set[str]]:
    """Stage → names of the stages that it waits for, directly or not.

    A stage waits for those that write its parents. One that runs alone waits for all stages before it, and
    all stages after it wait for it.
    """
    waits: dict[str, set[str]] = {}
    barrier: set[str] = set()
    for stage in stages:
        direct = {other.name for other in stages if other.folder in stage.parents.values()}
        direct |= set(waits) if stage.alone else barrier
        waits[stage.name] = direct.union(*(waits.get(name, set()) for name in direct))
        if stage.alone:
            barrier = {stage.name}
    return waits


def urgency(stages: Sequence[Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """Stage → seconds from its start to the end of the longest chain of stages that wait for it.

    `seconds`: stage → seconds that it is expected to take; 0 where it is missing.
    """
    waits = prerequisites(stages)
    chains: dict[str, float] = {}
    for stage in reversed(stages):
        after = [chains[name] for name in chains if stage.name in waits[name]]
        chains[stage.name] = seconds.get(stage.name, 0.0) + max(after, default=0.0)
    return chains


def next_stage(
    stages: Sequence[Stage],
    finished: Collection[str],
    started: Collection[str],
    seconds: Mapping[str, float],
) -> Stage | None:
    """The stage to start now, or None where each of the others waits for one that is not finished.

    Stages that take seconds come first, then the longest chain (critical path first).
    """
    waits, chains = prerequisites(stages), urgency(stages, seconds)
    ready = [
        stage
        for stage in stages
        if stage.name not in {*finished, *started} and waits[stage.name] <= set(finished)
    ]
    return max(ready, key=lambda stage: (stage.quick, chains[stage.name]), default=None)


def runs_alone(stages: Sequence[Stage], name: str, finished: Collection[str]) -> bool:
    """Whether no other unfinished stage can run at the same time as this one."""
    waits = prerequisites(stages)
    return all(
        name in waits[stage.name]
        for stage in stages
        if stage.name != name and stage.name not in finished
    )


def expected_seconds(stages: Sequence[Stage], left: Mapping[str, float], size: int) -> float:
    """Seconds until all stages have ended, `size` at a time; `left`: those of each that is not done yet."""
    now, finished, running = 0.0, set[str](), dict[str, float]()
    while len(finished) < len(stages):
        while len(running) < size and (stage := next_stage(stages, finished, running, left)):
            running[stage.name] = now + left.get(stage.name, 0.0)
        first = min(running, key=lambda name: running[name])
        now = running.pop(first)
        finished.add(first)
    return now
