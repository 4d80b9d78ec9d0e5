"""Trains on two nodes that share only a disk; loses a node, or the network, and resumes.

python -m benchmarks.nodes    # about 10 minutes; needs root and iproute2

Each node is a network namespace on this machine, with its own address and host name; one virtual cable
connects them, which can be set down.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from benchmarks.record import write_record
from benchmarks.slurm import TINY, wait_for
from benchmarks.sources import CHECKPOINTS
from catalog.demo import build_demo_world
from launch.events import read_events
from launch.submit.config import PORT
from tests.pretrain.runs import largest_difference, losses

NODES = ("node-1", "node-2")
"""Host names; the rendezvous is at the first."""
NETWORK = "10.213.77"
STEPS, EVERY, ROWS = 300, 20, 4
FIRST = 30
STRIKE_AT = 0.4
"""Share of the steps after which the fault is injected."""
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TIMEOUT = 15
"""Time-out of the watchdog in seconds."""
PATIENCE = 300


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if shutil.which("ip") is None or os.getuid():
        sys.exit("no second node here: root and ip are needed (apt install iproute2)")
    with tempfile.TemporaryDirectory(prefix="vitrine nodes ") as name, two_hosts():
        figures = every_loss(Path(name))
    write_record(
        "launch-two-nodes",
        claim="A training on two nodes starts, loses a node or the net between them, and goes on from "
        "its checkpoint when they are back, to the same losses.",
        command="python -m benchmarks.nodes",
        seeds=[0],
        figures=figures,
        sources=[
            *CHECKPOINTS,
            "benchmarks/slurm.py",
            "launch/submit/agent.py",
            "launch/watchdog.py",
        ],
        goal=[
            "world_size == 2",
            "runs_finished == 4",
            "first_losses_against_one_process <= 1e-6",
            "largest_loss_difference <= 1e-6",
            "second_node_lost_first_agent_stayed == 1",
            f"net_cut_seconds_until_reported <= {TIMEOUT + 5}",
            "net_cut_agents_stayed == 2",
        ],
        note="`vitrine launch pretrain --nodes 2` on each of two network namespaces with addresses and "
        f"host names of their own and gloo between them; {STEPS} steps at toy size, a checkpoint every "
        f"{EVERY}. A lost node: SIGKILL to its agent and its process. second_node_lost: the first one's "
        "agent waits, and begins again with the node that comes back. first_node_lost: the agents met "
        "there, so the second one's ends too; both are started again. net_cut: the cable is pulled for "
        f"{TIMEOUT + 10} s, in which the watchdog (time-out {TIMEOUT} s) ends what waits; then both go on "
        "by themselves. loss_difference: the largest of all steps, relative to the two nodes that nothing "
        f"happened to; theirs of the first {FIRST} steps are compared with those of one process with as "
        "many rows a step (later ones differ by more than rounding: training amplifies it). No dropout.",
    )


def every_loss(folder: Path) -> dict[str, float]:
    os.environ["VITRINE_CACHE"] = str(folder / "cache")
    world = build_demo_world(folder / "world", num_items=80, num_users=60) / "home"
    text = {**TINY["encoder"]["text"]["config"], **WITHOUT_DROPOUT}
    encoder = {
        **TINY["encoder"],
        "text": {**TINY["encoder"]["text"], "config": text},
        "sequence": {**TINY["encoder"]["sequence"], "dropout": 0.0},
        "modality_dropout": 0.0,
    }
    config = {**TINY, "encoder": encoder, "data": {**TINY["data"], "rows": ROWS // len(NODES)}}
    config["trainer"] = {
        **TINY["trainer"],
        "max_steps": STEPS,
        "checkpoint_every": EVERY,
        "log_every": 1,
        "hang_timeout": TIMEOUT,
    }
    config["catalog"] = {"path": str(world)}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    alone = [*vitrine("pretrain", folder, folder / "alone"), "--data.rows", str(ROWS)]
    subprocess.run(alone, check=True, env=environment(), stderr=subprocess.DEVNULL)
    figures: dict[str, float] = {"runs_finished": 0, "world_size": len(NODES)}
    differences = []
    for lose in (nothing, second_node, first_node, net):
        output = folder / lose.__name__
        job = TwoNodes(folder, output)
        try:
            figures |= lose(job)
            job.wait()
        finally:
            job.end()
        figures["runs_finished"] += 1
        sizes = [event["world_size"] for event in job.events("start")]
        figures["world_size"] = min(figures["world_size"], *sizes)
        differences.append(largest_difference(output, folder / "nothing"))
        print(f"{lose.__name__}: {differences[-1]:.2g}", flush=True)
    ours, one = (losses(folder / name)[:FIRST] for name in ("nothing", "alone"))
    figures["first_losses_against_one_process"] = float(np.abs(ours / one - 1).max())
    return {**figures, "largest_loss_difference": max(differences)}


class TwoNodes:
    """One `vitrine launch pretrain`, started on both nodes."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        self.output = output
        self.agents: list[subprocess.Popen[bytes]] = [self.start(place) for place in range(2)]

    def start(self, place: int) -> subprocess.Popen[bytes]:
        command = vitrine("launch", self.folder, self.output)
        command += ["--nodes", "2", "--devices", "1", "--rdzv_endpoint", f"{NODES[0]}:{PORT}"]
        with self.log(place).open("a") as log_file:
            return subprocess.Popen(
                on_node(NODES[place], command),
                env=environment(),
                stderr=log_file,
                stdout=log_file,
                start_new_session=True,
            )

    def log(self, place: int) -> Path:
        return self.output.with_name(f"{self.output.name}-{NODES[place]}.log")

    def kill(self, place: int) -> None:
        """Kills the agent of a node and all its processes, as a power failure would."""
        for pid in members(self.agents[place].pid):
            os.kill(pid, signal.SIGKILL)
        self.agents[place].wait()

    def at(self, step: int) -> None:
        """Waits until training has reached a step."""
        wait_for(lambda: max((beat["step"] for beat in self.beats()), default=0) >= step, PATIENCE)

    def beats(self) -> list[dict[str, int]]:
        found = []
        for path in self.output.parent.glob(f"{self.output.name}.work/*/ranks/*.json"):
            try:
                found.append(json.loads(path.read_text()))
            except (OSError, ValueError):  # being replaced
                continue
        return found

    def events(self, name: str) -> list[dict[str, int]]:
        works = self.output.parent.glob(f"{self.output.name}.work/*")
        return [event for work in works for event in read_events(work) if event["event"] == name]

    def resumes(self) -> int:
        return len(self.events("resume"))

    def wait(self) -> None:
        """Waits until both agents end with exit status 0."""
        for place, agent in enumerate(self.agents):
            code = agent.wait(PATIENCE)
            assert code == 0, self.log(place).read_text()[-3000:]

    def end(self) -> None:
        for agent in self.agents:
            for pid in members(agent.pid):
                os.kill(pid, signal.SIGKILL)


def nothing(job: TwoNodes) -> dict[str, float]:
    return {}


def second_node(job: TwoNodes) -> dict[str, float]:
    job.at(round(STRIKE_AT * STEPS))
    job.kill(1)
    time.sleep(10)
    stayed = job.agents[0].poll() is None
    job.agents[1] = job.start(1)
    began = time.monotonic()
    wait_for(job.resumes, PATIENCE)
    return {
        "second_node_lost_first_agent_stayed": float(stayed),
        "second_node_lost_seconds_until_resumed": time.monotonic() - began,
    }


def first_node(job: TwoNodes) -> dict[str, float]:
    job.at(round(STRIKE_AT * STEPS))
    job.kill(0)
    began = time.monotonic()
    code = job.agents[1].wait(PATIENCE)
    figures = {
        "first_node_lost_seconds_until_second_ended": time.monotonic() - began,
        "first_node_lost_status_of_second": float(code),
    }
    job.agents = [job.start(place) for place in range(2)]
    return figures


def net(job: TwoNodes) -> dict[str, float]:
    job.at(round(STRIKE_AT * STEPS))
    pull(down=True)
    began = time.monotonic()
    try:
        wait_for(lambda: job.events("hang"), PATIENCE)
        seconds = time.monotonic() - began
        time.sleep(max(0.0, TIMEOUT + 10 - seconds))
        stayed = sum(agent.poll() is None for agent in job.agents)
    finally:
        pull(down=False)
    return {"net_cut_seconds_until_reported": seconds, "net_cut_agents_stayed": float(stayed)}


def members(session: int) -> list[int]:
    """Process ids of an agent and its descendants, which run in sessions of their own."""
    found, children = [session], [session]
    while children:
        command = ["ps", "--no-headers", "-o", "pid", "--ppid", ",".join(map(str, children))]
        listing = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        children = [int(pid) for pid in listing.split()]
        found += children
    return [pid for pid in found if Path(f"/proc/{pid}").exists()]


def vitrine(stage: str, folder: Path, output: Path) -> list[str]:
    command = [sys.executable, "-m", "launch.cli", stage]
    command += ["pretrain"] if stage == "launch" else []
    return [*command, "--config", str(folder / "tiny.yaml"), "--output", str(output)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def on_node(name: str, command: list[str]) -> list[str]:
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name]
    return ["ip", "netns", "exec", name, *named, *command]


@contextmanager
def two_hosts() -> Iterator[None]:
    """Creates two network namespaces and the cable between them; removes them at exit."""
    hosts = "127.0.0.1 localhost\n"
    hosts += "".join(f"{NETWORK}.{place + 1} {name}\n" for place, name in enumerate(NODES))
    made: list[str] = []
    try:
        for name in NODES:
            ip("netns", "add", name)
            made.append(name)
            etc = Path("/etc/netns") / name  # what `ip netns exec` shows as /etc
            etc.mkdir(parents=True)
            (etc / "hosts").write_text(hosts)
        ends = ["eth0", "netns", NODES[0], "type", "veth", "peer", "eth0", "netns", NODES[1]]
        ip("link", "add", *ends)
        for place, name in enumerate(NODES):
            ip("-n", name, "addr", "add", f"{NETWORK}.{place + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def pull(down: bool) -> None:
    ip("-n", NODES[0], "link", "set", "eth0", "down" if down else "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
