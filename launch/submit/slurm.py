"""Writes the batch script of a job for SLURM, and submits it.

A job that runs out of time receives a signal, writes a checkpoint, and requeues itself: a training may
take longer than any one job is allowed to.
"""

import shlex
import sys
from pathlib import Path

from catalog.atomic_write import PROGRESS_FILE
from launch.submit.config import RESUMABLE, Job, LaunchOptions
from launch.submit.local import AGENT, process_arguments, rendezvous_arguments
from launch.submit.submission import submit_script

RENDEZVOUS = """\
# Jobs that share a node meet at different ports.
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
"""

KEEP = """\
# The stage touches this file whenever it has written something to go on from.
export {name}={file}-"$SLURM_JOB_ID".kept
rm -f "${name}"
"""

WATCH = """\
step=$!

# srun passes USR1 on to the agents, and those to the training; at TERM it would kill them.
signalled=yes
trap 'signalled=yes; kill -USR1 "$step"' USR1 TERM

# A signal ends `wait`, but not the step.
while [ "$signalled" ]; do
    signalled=
    wait "$step"
    code=$?
done

# A job that keeps nothing, twice in a row, would begin again for ever.
again=
if [ "$code" -eq RESUMABLE ] && [ "${SLURM_RESTART_COUNT:-0}" -lt REQUEUES ]; then
    if [ -e "$VITRINE_PROGRESS_FILE" ]; then
        again=yes
        rm -f "$VITRINE_PROGRESS_FILE.none"
    elif [ -e "$VITRINE_PROGRESS_FILE.none" ]; then
        echo "stopped twice before anything was kept; not queued again: raise --time or --signal_before"
    else
        again=yes
        touch "$VITRINE_PROGRESS_FILE.none"
    fi
fi

# A job that was cancelled (scancel) is not RUNNING any more, and stays cancelled.
if [ "$again" ]; then
    state=$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")
    if [ "$state" = RUNNING ]; then
        echo "stopped by a signal; queued again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
rm -f "$VITRINE_PROGRESS_FILE"
[ "$again" ] || rm -f "$VITRINE_PROGRESS_FILE.none"
exit "$code"
"""


def submit_to_slurm(job: Job, options: LaunchOptions) -> None:
    """Queues the job; with `dry_run`, prints the script instead."""
    text = batch_script(job, options, sys.executable, Path.cwd())
    submit_script(text, Path(options.work) / f"{job.name}.sbatch", ["sbatch"], options.dry_run)


def batch_script(job: Job, options: LaunchOptions, python: str, folder: Path) -> str:
    """What `sbatch` takes; relative paths in it begin at `folder`."""
    srun = ["srun", "--kill-on-bad-exit=0", f"--cpus-per-task={job.cpus * job.devices}"]
    start = [
        shlex.join([*srun, python, *AGENT]),
        *rendezvous_arguments(
            job.nodes, '"$host:$port"', '"$SLURM_JOB_ID"'
        ),  # for the shell to fill in
        shlex.join(process_arguments(job)),
        '"${stage[@]}" &',
    ]
    file = shlex.quote(f"{folder / options.work}/{job.name}")
    keep = KEEP.format(name=PROGRESS_FILE, file=file)
    watch = WATCH.replace("RESUMABLE", str(RESUMABLE)).replace("REQUEUES", str(options.requeues))
    parts = [
        "\n".join(["#!/bin/bash", *_directives(job, options, folder)]) + "\n",
        _stage(job.runs),
        *([RENDEZVOUS] if job.nodes > 1 else []),
        keep,
        " ".join(start) + "\n" + watch,
    ]
    return "\n".join(parts)


def _directives(job: Job, options: LaunchOptions, folder: Path) -> list[str]:
    several = len(job.runs) > 1
    log = f"{folder / options.work}/{job.name}".replace("%", "%%")
    directives = {
        "job-name": job.name,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus * job.devices,
        "gpus-per-node": job.devices if job.gpus else "",
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "dependency": f"afterok:{options.after}" if options.after else "",
        "array": f"0-{len(job.runs) - 1}" if several else "",
        "chdir": folder,
        "output": f"{log}-{'%A_%a' if several else '%j'}.log",
        "open-mode": "append",
        "signal": f"B:USR1@{options.signal_before}",
    }
    words = [f"--{key}={value}" for key, value in directives.items() if value != ""]
    return [
        f"#SBATCH {shlex.quote(word)}"
        for word in [*words, "--requeue", *shlex.split(options.sbatch)]
    ]


def _stage(runs: tuple[tuple[str, ...], ...]) -> str:
    if len(runs) == 1:
        return f"stage=({shlex.join(runs[0])})\n"
    cases = [f"{number}) stage=({shlex.join(run)}) ;;" for number, run in enumerate(runs)]
    return "\n".join(["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"]) + "\n"
