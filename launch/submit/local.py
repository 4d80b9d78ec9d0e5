"""Starts a stage on this machine's devices, or this machine's share of one on several."""

import os
import shlex
import socket
import sys

from catalog.errors import VitrineError
from launch.submit.config import PORT, Job, LaunchOptions

AGENT = ("-m", "launch.submit.agent")
"""What Python runs on each machine."""


def start_here(job: Job, options: LaunchOptions) -> None:
    """Becomes the agent, so that signals and the exit status are the agent's own.

    For several machines without a rendezvous endpoint it prints what to start on each.
    """
    if len(job.runs) > 1:
        raise VitrineError(
            "--array starts many runs at once, which takes a scheduler; use --on slurm or "
            "--on kubernetes, or start them one after the other."
        )
    endpoint = options.rdzv_endpoint
    if job.nodes > 1 and not endpoint:
        endpoint = f"{socket.gethostname()}:{PORT}"
        print(
            f"on each of {job.nodes} machines, this one ({endpoint}) among them:", file=sys.stderr
        )
        print(shlex.join(agent_command(job, sys.executable, endpoint)))
        return
    command = agent_command(job, sys.executable, endpoint)
    if options.dry_run:
        print(shlex.join(command))
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def agent_command(job: Job, python: str, endpoint: str) -> list[str]:
    """The command that starts the processes of one machine; those of several meet at `endpoint`."""
    where = rendezvous_arguments(job.nodes, endpoint, job.name)
    return [python, *AGENT, *where, *process_arguments(job), *job.runs[0]]


def rendezvous_arguments(nodes: int, endpoint: str, name: str) -> list[str]:
    """Arguments for how the agents of a job find each other, and its name."""
    if nodes == 1:
        return ["--standalone"]
    return [
        f"--nnodes={nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={endpoint}",
        f"--rdzv-id={name}",
    ]


def process_arguments(job: Job) -> list[str]:
    """Arguments for the number and module of an agent's processes; the stage and its arguments follow."""
    return [
        f"--nproc-per-node={job.devices}",
        f"--max-restarts={job.restarts}",
        *("--module", "launch.cli"),
    ]
