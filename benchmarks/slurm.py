"""SLURM: a training whose job reaches its time limit is requeued and resumes by itself.

python -m benchmarks.slurm    # about 3 minutes; needs slurmctld, slurmd and root

Starts a SLURM cluster of two nodes on this machine in a temporary folder, and stops it at the end.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from benchmarks.record import write_record
from catalog.demo import build_demo_world
from launch.submit.config import RESUMABLE, Job, LaunchOptions
from launch.submit.slurm import batch_script

NODES = ("n1", "n2")
CONTROL_PORT = 26817
CONFIG = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ReturnToService=2
{nodes}
PartitionName=here Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
STEPS = 600
TINY = {
    "encoder": {
        "width": 32,
        "text": {
            "vocab_size": 300,
            "config": {
                "model_type": "bert",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
            },
        },
        "image": {
            "image_size": 32,
            "config": {
                "model_type": "vit",
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "patch_size": 16,
            },
        },
        "sequence": {"layers": 1, "heads": 2},
    },
    "data": {"rows": 2, "max_broken": 0.2},
    "trainer": {
        "accelerator": "cpu",
        "progress": False,
        "checkpoint_every": 50,
        "max_steps": STEPS,
    },
}
PATIENCE = 300
STUB = """#!{python}
import os, signal, sys, time
def stop(number, _):
    open(f"heard-{{os.environ['SLURM_NODEID']}}", "a").write(f"{{number}}\\n")
    os._exit({goes_on})
if "SLURM_RESTART_COUNT" in os.environ:
    open(f"again-{{os.environ['SLURM_NODEID']}}", "w").close()
    sys.exit()
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
open(f"began-{{os.environ['SLURM_NODEID']}}", "w").close()
time.sleep(120)
"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lacking = [program for program in ("slurmctld", "slurmd") if shutil.which(program) is None]
    if lacking or os.getuid():
        sys.exit(
            f"no cluster here: {' and '.join(lacking) or 'root'} is needed (apt install slurm-wlm)"
        )
    with tempfile.TemporaryDirectory(prefix="vitrine slurm ") as folder, cluster() as version:
        figures = two_nodes(Path(folder)) | training(Path(folder))
    write_record(
        "launch-schedulers",
        claim="Told by a real SLURM that its time is up, a training writes a checkpoint, is queued "
        "again, goes on where it was, and finishes; a cancelled one stays cancelled.",
        command="python -m benchmarks.slurm",
        seeds=[0],
        figures={"slurm": version, **figures},
        sources=["launch/graceful_stop.py", "launch/submit/*.py", "launch/trainer.py"],
        goal=[
            "jobs_requeued == 1",
            f"steps == {STEPS}",
            "steps_repeated == 0",
            "nodes_signalled == 2",
            "nodes_started_again == 2",
            "cancelled_requeued == 0",
        ],
        note="A cluster of two nodes on one machine; the signal that --signal=B:USR1 asks for is sent "
        "by scancel --batch. The training: two processes with gloo, whole. Two nodes, and the cancelled "
        "job: a stand-in that ends as a stopped training does. steps_repeated: between the step that "
        "was stopped after and the one that was gone on from.",
    )


@contextmanager
def cluster() -> Iterator[str]:
    """Starts a cluster of two nodes on this machine and stops it at exit; yields SLURM's version."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    (folder / "state").mkdir()
    host = socket.gethostname()
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={CONTROL_PORT + 4 + place} "
        f"CPUs={os.cpu_count()} State=UNKNOWN"
        for place, name in enumerate(NODES)
    ]
    text = CONFIG.format(
        host=host, port=CONTROL_PORT, folder=folder, nodes="\n".join(nodes), names=",".join(NODES)
    )
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    commands = [["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in NODES)]
    quiet = subprocess.DEVNULL
    daemons = [subprocess.Popen(command, stdout=quiet, stderr=quiet) for command in commands]
    try:
        try:
            wait_for(lambda: run_command("sinfo", "-h", "-o", "%T %D").strip() == "idle 2", 60)
        except TimeoutError:
            logs = (folder / "slurmctld.log").read_text(errors="replace").splitlines()
            sys.exit(f"no cluster here: SLURM does not start: {logs[-1]}")
        yield run_command("sinfo", "--version").strip()
    finally:
        run_command("scancel", "--me")
        with suppress(TimeoutError):
            wait_for(lambda: not run_command("squeue", "-h").strip(), 60)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def two_nodes(folder: Path) -> dict[str, int]:
    """Signals a job on two nodes that its time is up, so that it is requeued; cancels another."""
    stub = folder / "stub"
    stub.write_text(STUB.format(python=sys.executable, goes_on=RESUMABLE))
    stub.chmod(0o755)
    job = Job("stub", (("pretrain",),), nodes=2, devices=1, gpus=False, cpus=1, restarts=0)
    options = LaunchOptions("pretrain", work=".")
    figures = {}
    for what in ("told", "cancelled"):
        where = folder / f"a shop's {what}"  # tests quoting of such names
        where.mkdir()
        script = where / "job.sbatch"
        script.write_text(batch_script(job, options, str(stub), where))
        number = run_command("sbatch", "--parsable", str(script)).strip()
        wait_for(lambda where=where: len(list(where.glob("began-*"))) == 2)
        if what == "told":
            run_command("scancel", "--batch", "--signal=USR1", number)
            wait_for(lambda where=where: len(list(where.glob("again-*"))) == 2)
            figures["nodes_signalled"] = len(list(where.glob("heard-*")))
            figures["nodes_started_again"] = len(list(where.glob("again-*")))
        else:
            run_command("scancel", number)
            wait_for(lambda number=number: not queued(number))
            time.sleep(10)
            figures["cancelled_requeued"] = int(queued(number))
    return figures


def training(folder: Path) -> dict[str, object]:
    """Runs a tiny training by `vitrine launch` and signals it; reads figures from its log and manifest."""
    os.environ["VITRINE_CACHE"] = str(folder / "cache")
    os.environ["OMP_NUM_THREADS"] = "1"
    world = build_demo_world(folder / "world", num_items=80, num_users=60) / "home"
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    output, logs = folder / "encoder", folder / "logs"
    command = [sys.executable, "-m", "launch.cli", "launch", "pretrain", "--on", "slurm"]
    command += ["--devices", "2", "--cpus", "1", "--time", "30", "--work", str(logs)]
    command += ["--config", str(folder / "tiny.yaml"), "--catalog.path", str(world)]
    command += ["--output", str(output)]
    stdout = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    number = stdout.split()[-1]
    wait_for(lambda: list(folder.glob("encoder.work/**/checkpoint.json")), PATIENCE)
    run_command("scancel", "--batch", "--signal=USR1", number)
    wait_for(lambda: not queued(number), PATIENCE)
    log = (logs / f"vitrine-pretrain-{number}.log").read_text()
    print(log, file=sys.stderr)
    stops, resumes = numbers_after(log, "after step "), numbers_after(log, "resuming at step ")
    manifest = json.loads((output / "manifest.json").read_text())
    return {
        "jobs_requeued": log.count("queued again"),
        "steps": manifest["metrics"]["steps"],
        "steps_before": sum(stops),
        "steps_repeated": sum(abs(stop - go) for stop, go in zip(stops, resumes, strict=True)),
    }


def numbers_after(text: str, words: str) -> list[int]:
    return [int(part.split()[0].strip(";.")) for part in text.split(words)[1:]]


def queued(number: str) -> bool:
    return bool(run_command("squeue", "-h", "-j", number).strip())


def run_command(*command: str) -> str:
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


def wait_for(holds: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing happened in {seconds:.0f} s")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
