"""Options of `vitrine launch`, the job made from them, and exit statuses; imports no torch."""

from dataclasses import dataclass
from typing import Literal

from catalog.config import NonNegativeInt, PositiveInt

RESUMABLE = 75
"""Status of a stage that a signal stopped: it resumes when started again (EX_TEMPFAIL)."""
USER_ERROR = 2
"""Status of a stage that reported a mistake in one line; starting it again would say the same."""
INTERRUPTED = 130
"""Status of a stage that the user stopped with Ctrl-C."""
NOT_RESUMABLE = 77
"""Status of a stage that a signal stopped, and that has no checkpoint: started again, it starts at step 0."""
PORT = 29500
"""Where the processes of a job meet, on its first node."""


@dataclass(frozen=True)
class LaunchOptions:
    stage: str
    """pretrain, finetune, embed, compare, train-text, train-image or run; its own options and settings
    follow, as without `launch`."""
    on: Literal["local", "slurm", "kubernetes"] = "local"
    """Where the stage runs."""
    nodes: NonNegativeInt = 0
    """Machines; 0: as trainer.nodes says."""
    devices: NonNegativeInt = 0
    """Devices on each of them; 0: as trainer.devices says."""
    cpu: bool = False
    """Without GPUs, as with trainer.accelerator cpu."""
    cpus: PositiveInt = 4
    """Processor cores for each device (SLURM, Kubernetes)."""
    restarts: NonNegativeInt = 3
    """How often all processes are restarted from the newest checkpoint after one failed; a mistake in the
    settings is reported once."""
    name: str = ""
    """What the job is called; empty: vitrine-STAGE."""
    array: str = ""
    """A sweep: a number of seeds, or a file with the settings of one run on each line. Each has an
    output of its own, OUTPUT-0 and so on."""
    work: str = "runs/launch"
    """Folder for scripts and logs."""
    dry_run: bool = False
    """Only print what would be started or submitted."""
    rdzv_endpoint: str = ""
    """Local, on several machines: HOST:PORT of the first; starts the processes of this machine."""
    time: str = ""
    """SLURM: longest time of one run, such as 12:00:00; a stage that is not done by then is requeued
    and resumes."""
    signal_before: NonNegativeInt = 120
    """SLURM: seconds before that time in which to write a checkpoint."""
    requeues: NonNegativeInt = 100
    """SLURM: how often a job requeues itself at most; after two runs in a row that kept nothing (no
    checkpoint, no artifact, no block of vectors) it does not."""
    partition: str = ""
    """SLURM: the partition."""
    account: str = ""
    """SLURM: the account."""
    after: str = ""
    """SLURM: number of a job that has to succeed first."""
    sbatch: str = ""
    """SLURM: further options of sbatch, such as --sbatch='--mem=64G --constraint=a100'."""
    kind: Literal["pytorchjob", "jobset"] = "pytorchjob"
    """Kubernetes: Kubeflow's PyTorchJob, or a JobSet."""
    image: str = ""
    """Kubernetes: the container image, made from `Containerfile`."""
    namespace: str = ""
    """Kubernetes: the namespace; empty: kubectl's."""
    claim: str = "vitrine"
    """Kubernetes: claim of the volume that all nodes share."""
    mount: str = "/work"
    """Kubernetes: where that volume is; relative paths begin there."""


@dataclass(frozen=True)
class Job:
    """One stage on so many devices, or a sweep of it."""

    name: str
    runs: tuple[tuple[str, ...], ...]
    """What follows `vitrine` on the command line, for each member of the sweep; one without."""
    nodes: int
    devices: int
    """On each node."""
    gpus: bool
    cpus: int
    """Processor cores for each device."""
    restarts: int
