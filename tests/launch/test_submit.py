"""A stage on many devices: what is started, what is submitted, and what becomes of how it ends."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.errors import VitrineError
from catalog.yaml_files import dump_yaml, parse_yaml
from launch.arguments import Signature
from launch.cli import load_command, main
from launch.settings import describe, field_types
from launch.submit import local
from launch.submit.agent import combined_status
from launch.submit.config import RESUMABLE, Job, LaunchOptions
from launch.submit.kubernetes import manifests
from launch.submit.slurm import batch_script
from launch.submit.stage import STAGES, read_job

GOLDEN = Path(__file__).with_name("golden")
PYTHON, FOLDER = "/opt/vitrine/bin/python", Path("/home/ada/a shop's")
ASKED = LaunchOptions(
    "pretrain",
    time="12:00:00",
    partition="gpu",
    account="shop",
    after="41",
    sbatch="--mem=64G --comment='two words'",
    image="registry/vitrine:1",
    namespace="shops",
)
JOB = Job(
    name="vitrine-pretrain",
    runs=(("pretrain", "--catalog.path", "a shop's", "--trainer.devices", "8"),),
    nodes=2,
    devices=8,
    gpus=True,
    cpus=4,
    restarts=3,
)
SWEEP = replace(
    JOB,
    runs=tuple(("pretrain", "--output", f"out-{seed}") for seed in range(2)),
    nodes=1,
    gpus=False,
)
HARD_WORDS = ("a b", "it's", '"', "$(echo no)", "`no`", "$HOME", "\\", "é\nnext", "*", "")


def scripts() -> dict[str, str]:
    return {
        "pretrain.sbatch": batch_script(JOB, ASKED, PYTHON, FOLDER),
        "sweep.sbatch": batch_script(SWEEP, LaunchOptions("pretrain"), PYTHON, FOLDER),
    }


def documents() -> dict[str, list[dict[str, Any]]]:
    return {
        "pytorchjob.yaml": manifests(JOB, ASKED),
        "jobset.yaml": manifests(JOB, replace(ASKED, kind="jobset")),
        "sweep.yaml": manifests(SWEEP, replace(ASKED, namespace="")),
    }


def written() -> dict[str, str]:
    dumped = {name: dump_yaml(several) for name, several in documents().items()}
    return scripts() | dumped


@pytest.mark.parametrize("name", sorted(written()))
def test_what_is_submitted_is_as_it_was_read_and_approved(name: str) -> None:
    assert written()[name] == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(scripts()))
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n"], input=scripts()[name], text=True, check=True)
    assert subprocess.run(["bash", "-n"], input="if", text=True, check=False).returncode


# The parts that matter of the published schemas.
# PyTorchJob: kubeflow/training-operator, manifests/base/crds/kubeflow.org_pytorchjobs.yaml, and what
# the operator itself refuses: pkg/apis/kubeflow.org/v1/{common_types,pytorch_validation}.go.
# JobSet: kubernetes-sigs/jobset, config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml.
# Pods: the API of Kubernetes 1.32, core/v1 and batch/v1.
LABEL = {"type": "string", "pattern": r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"}
COUNT = {"type": "integer", "minimum": 0}
SOME = {"type": "integer", "minimum": 1}
TEXT = {"type": "string", "pattern": r"(?s).+"}


def closed(required: str, optional: str = "", **properties: Any) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "known": {*required.split(), *optional.split(), *properties},
    }


def listed(items: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


CONTAINER = closed(
    "name image command",
    "resources",
    name={"enum": ["pytorch"]},
    image=TEXT,
    command=listed({"type": "string"}),
    workingDir={"type": "string", "pattern": "/.*"},
    env=listed(closed("name value", name=TEXT, value={"type": "string"})),
    ports=listed(closed("containerPort name", containerPort=SOME, name=LABEL)),
    resources=closed(
        "",
        requests=closed("", cpu={"type": "string", "pattern": "[0-9]+m?"}),
        limits=closed("nvidia.com/gpu", **{"nvidia.com/gpu": SOME}),
    ),
    volumeMounts=listed(closed("name mountPath", name=LABEL, mountPath=TEXT)),
)
POD = closed(
    "containers",
    "restartPolicy",
    terminationGracePeriodSeconds={"type": "integer", "minimum": 60},
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    containers=listed(CONTAINER),
    volumes=listed(
        closed(
            "name",
            name=LABEL,
            persistentVolumeClaim=closed("claimName", claimName=LABEL),
            emptyDir=closed("", medium={"enum": ["", "Memory"]}),
        )
    ),
)
METADATA = closed("name", name=LABEL, namespace=LABEL)
REPLICA = closed(
    "replicas restartPolicy template",
    replicas=SOME,
    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
    template=closed("spec", spec=POD),
)
PYTORCHJOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"enum": ["kubeflow.org/v1"]},
    kind={"enum": ["PyTorchJob"]},
    metadata=METADATA,
    spec=closed(
        "pytorchReplicaSpecs",
        nprocPerNode={"type": "string", "pattern": "auto|cpu|gpu|[0-9]+"},
        runPolicy=closed(
            "",
            backoffLimit=COUNT,
            cleanPodPolicy={"enum": ["All", "Running", "None"]},
        ),
        elasticPolicy=closed(
            "",
            rdzvBackend={"enum": ["c10d", "etcd", "etcd-v2"]},
            rdzvHost=TEXT,
            rdzvPort=SOME,
            rdzvId=TEXT,
            minReplicas=SOME,
            maxReplicas=SOME,
            maxRestarts=COUNT,
        ),
        pytorchReplicaSpecs=closed("Worker", Worker=REPLICA, Master=REPLICA),
    ),
)
JOB_POD = {**POD, "required": ["containers", "restartPolicy"]}
JOB_POD["properties"] = {**POD["properties"], "restartPolicy": {"enum": ["OnFailure", "Never"]}}
BATCH_JOB = closed(
    "template",
    parallelism=COUNT,
    completions=COUNT,
    completionMode={"enum": ["NonIndexed", "Indexed"]},
    backoffLimit=COUNT,
    template=closed("spec", spec=JOB_POD),
)
JOBSET = closed(
    "apiVersion kind metadata spec",
    apiVersion={"enum": ["jobset.x-k8s.io/v1alpha2"]},
    kind={"enum": ["JobSet"]},
    metadata=METADATA,
    spec=closed(
        "replicatedJobs",
        failurePolicy=closed("", maxRestarts=COUNT),
        replicatedJobs=listed(
            closed(
                "name template", name=LABEL, replicas=COUNT, template=closed("spec", spec=BATCH_JOB)
            )
        ),
    ),
)
SCHEMAS = {"pytorchjob.yaml": PYTORCHJOB, "sweep.yaml": PYTORCHJOB, "jobset.yaml": JOBSET}
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def wrong(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """Where a value breaks a JSON schema, of which this knows what is used above."""
    if "type" in schema and type(value) is not TYPES[schema["type"]]:
        return [f"{where} is no {schema['type']}"]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        found.append(f"{where} is {value!r}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{where} is {value}")
    if isinstance(value, dict):
        found += [
            f"{where} lacks {name}" for name in schema.get("required", []) if name not in value
        ]
        found += [f"{where} has {name}" for name in value if name not in schema.get("known", value)]
        for name, inner in schema.get("properties", {}).items():
            found += wrong(value[name], inner, f"{where}.{name}") if name in value else []
    if isinstance(value, list):
        found += [f"{where} is empty"] if len(value) < schema.get("minItems", 0) else []
        for number, item in enumerate(value):
            found += wrong(item, schema["items"], f"{where}[{number}]")
    return found


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_manifests_are_what_the_cluster_takes(name: str) -> None:
    for document in documents()[name]:
        assert wrong(document, SCHEMAS[name]) == []
        assert yaml.safe_load(dump_yaml([document])) == document


def test_no_reader_of_a_manifest_takes_an_argument_for_a_number() -> None:
    """kubectl reads `1e-4` as a number, as YAML 1.2 does, and refuses it among arguments; 1.1 does not,
    but takes `no` for false."""
    texts = ["1e-4", ".5", "0o7", "0123", "no", "~", "12:30", "0x1f"]
    (document,) = manifests(replace(JOB, runs=(("pretrain", *texts),)), ASKED)
    written = dump_yaml([document])
    assert yaml.safe_load(written) == parse_yaml(written, "manifest") == document


def worker(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["pytorchReplicaSpecs"]["Worker"]


def batch_job(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["replicatedJobs"][0]["template"]["spec"]


@pytest.mark.parametrize(
    ("name", "mutate"),
    [
        ("pytorchjob.yaml", lambda job: job["spec"].pop("pytorchReplicaSpecs")),
        ("pytorchjob.yaml", lambda job: job["spec"]["pytorchReplicaSpecs"].pop("Worker")),
        ("pytorchjob.yaml", lambda job: worker(job).update(restartPolicy="onFailure")),
        ("pytorchjob.yaml", lambda job: worker(job).update(replicas="2")),
        ("pytorchjob.yaml", lambda job: job["spec"].update(nprocPerNode=8)),
        ("pytorchjob.yaml", lambda job: job["spec"].update(elasticpolicy={})),
        ("pytorchjob.yaml", lambda job: job["metadata"].update(name="1-shop")),
        ("pytorchjob.yaml", lambda job: worker(job)["template"]["spec"].pop("containers")),
        ("jobset.yaml", lambda job: job["spec"].pop("replicatedJobs")),
        ("jobset.yaml", lambda job: batch_job(job)["template"]["spec"].pop("restartPolicy")),
        (
            "jobset.yaml",
            lambda job: batch_job(job)["template"]["spec"].update(restartPolicy="Always"),
        ),
        ("jobset.yaml", lambda job: batch_job(job)["template"]["spec"].update(containers=[])),
    ],
)
def test_the_schemas_find_mistakes(name: str, mutate: Callable[[Any], Any]) -> None:
    (document,) = documents()[name]
    mutate(document)
    assert wrong(document, SCHEMAS[name])


def test_kubernetes_fills_in_nothing() -> None:
    job = replace(JOB, runs=(("pretrain", "--catalog.path", "$(HOME)"),))
    (document,) = manifests(job, ASKED)
    command = worker(document)["template"]["spec"]["containers"][0]["command"]
    assert command[-1] == "$$(HOME)"


@pytest.fixture
def shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of schedulers that write down how they were called; in a folder of their own."""
    folder = tmp_path / "shims"
    folder.mkdir()
    bodies = {
        "sbatch": 'cp "$1" submitted; echo Submitted batch job 7',
        "kubectl": 'cp "$3" submitted; echo created',
        "scontrol": 'if [ "$1" = show ]; then echo first; fi',
        "squeue": 'echo "${STATE:-RUNNING}"',
        "srun": 'while [[ $1 = --* ]]; do shift; done; exec "$@"',
    }
    for name, body in bodies.items():
        shim = folder / name
        log = shlex.quote(str(tmp_path / "calls"))
        shim.write_text(f'#!/bin/bash\necho "{name} $*" >> {log}\n{body}\n')
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return folder


def calls(name: str) -> list[str]:
    log = Path("calls")
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.split()[0] == name]


@pytest.mark.parametrize(
    ("line", "program"),
    [("--on slurm --array 2", "sbatch"), ("--on kubernetes --image shop", "kubectl")],
)
def test_a_dry_run_shows_what_would_be_submitted(
    line: str, program: str, shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["launch", "pretrain", *line.split(), "--catalog.path", "my shop"]
    assert main([*command, "--dry_run"]) == 0
    shown = capsys.readouterr()
    assert not calls(program)
    assert not Path("runs").exists()
    assert main(command) == 0
    assert shown.out == Path("submitted").read_text()
    assert not shown.err
    (file,) = Path("runs/launch").iterdir()
    assert file.read_text() == shown.out
    assert len(calls(program)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain --trainer.max_stepz 5", "Did you mean 'trainer.max_steps'?"),
        ("pretrain --trainer.max_steps many", "expected a whole number"),
        ("pretrain --device 2", "neither launch nor pretrain has an option '--device'"),
        ("pretrain --config nowhere.yaml", "no config 'nowhere.yaml'"),
        ("pretrian", "'pretrian' is no stage that can be launched"),
        ("train --array 2", "'train' is no stage that can be launched"),
        ("recommend runs/shop", "'recommend' is no stage"),
        ("run", "CONFIG is missing"),
        ("compare --devices 2", "devices were asked for; use 1"),
        ("pretrain --devices -1", "'devices' is -1 on the command line; expected a whole"),
        ("embed --array 3", "needs a stage that trains"),
        ("pretrain --array 0", "--array is 0"),
        ("pretrain --array none.txt", "neither a number of seeds nor a file"),
        ("pretrain --array bad.txt", "Did you mean 'trainer.seed'?"),
        ("pretrain --array empty.txt", "empty.txt is empty"),
        ("pretrain --name Shop", "--name 'Shop' becomes part of host names"),
        ("pretrain --name 1-shop", "becomes part of host names"),
        ("pretrain --name shop-", "becomes part of host names"),
        (f"pretrain --name {'s' * 41}", "at most 40"),
    ],
)
@pytest.mark.parametrize("place", ["slurm", "kubernetes"])
def test_a_mistake_is_told_before_anything_is_submitted(
    line: str, message: str, place: str, shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.txt").write_text("--trainer.seed 1\n--trainer.seeed 2\n")
    Path("empty.txt").write_text("# nothing\n\n")
    assert main(["launch", *line.split(), "--on", place, "--image", "shop"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not Path("calls").exists()
    assert not Path("runs").exists()


def test_what_only_one_place_needs_is_asked_for_there(
    shims: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, message in (
        ("--on kubernetes", "needs --image"),
        ("--on kubernetes --image shop --mount work", "absolute path"),
        ("--array 2", "takes a scheduler"),
    ):
        assert main(["launch", "pretrain", *line.split()]) == 2
        assert message in capsys.readouterr().err


def test_a_scheduler_that_is_not_there_or_refuses_is_one_line(
    shims: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shims / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: no partition' >&2; exit 1\n")
    assert main(["launch", "pretrain", "--on", "slurm"]) == 2
    assert capsys.readouterr().err.endswith("sbatch: error: no partition\n")
    monkeypatch.setenv("PATH", str(shims.parent))
    assert main(["launch", "pretrain", "--on", "slurm"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("vitrine: sbatch is not on this machine;")
    assert shown.count("\n") == 1


def read(line: str) -> Job:
    stage, *rest = line.split()
    options = {}
    known = {option.key: option.default for option in describe(LaunchOptions)}
    while rest and rest[0].removeprefix("--") in known:
        name = rest.pop(0).removeprefix("--")
        value = rest.pop(0)
        options[name] = int(value) if type(known[name]) is int else value
    return read_job(LaunchOptions(stage, **options), rest)


def test_devices_come_from_the_options_or_the_settings_and_the_options_win() -> None:
    both = "--trainer.nodes 2 --trainer.devices 4"
    job = read(f"pretrain {both}")
    assert (job.nodes, job.devices) == (2, 4)
    assert job.runs == (("pretrain", *both.split()),)
    job = read(f"pretrain --devices 8 {both}")
    assert (job.nodes, job.devices) == (2, 8)
    assert job.runs[0][-2:] == ("--trainer.devices", "8")
    assert read("embed --devices 3").runs == (("embed",),)
    with pytest.raises(VitrineError, match="ask for different numbers of devices"):
        read("run pipeline/demo --pretrain.trainer.devices 2")


def test_gpus_are_asked_for_unless_the_cpu_was(shims: Path) -> None:
    assert read("pretrain").gpus
    assert not read("pretrain --trainer.accelerator cpu").gpus
    job = read_job(LaunchOptions("pretrain", cpu=True), [])
    assert not job.gpus
    assert job.runs[0][-2:] == ("--trainer.accelerator", "cpu")


def test_two_words_are_one_stage() -> None:
    assert read("train-text").runs == read("train text").runs == (("train", "text"),)
    assert read("train-text").name == "vitrine-train-text"


def test_every_stage_can_be_launched_and_shares_no_option_with_launch() -> None:
    ours = field_types(LaunchOptions)
    for stage in STAGES:
        signature = Signature.of(load_command(stage))
        assert not set(ours) & {*field_types(signature.options), "config"}


def test_runs_of_a_sweep_differ_and_write_apart(tmp_path: Path) -> None:
    seeds = read("pretrain --array 3 --output here")
    assert [run[-4:] for run in seeds.runs] == [
        ("--output", f"here-{seed}", "--trainer.seed", str(seed)) for seed in range(3)
    ]
    file = tmp_path / "sweep.txt"
    file.write_text("--trainer.seed 1 # one\n\n--output other --catalog.path 'my shop'\n")
    told = read(f"pretrain --array {file}")
    assert told.runs[0][-4:] == ("--output", "runs/encoder-0", "--trainer.seed", "1")
    assert told.runs[1][-4:] == ("--output", "other", "--catalog.path", "my shop")


def test_here_the_launcher_becomes_the_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(local.os, "execv", lambda program, words: started.append((program, words)))
    words = [
        "launch",
        "pretrain",
        "--devices",
        "2",
        "--restarts",
        "1",
        "--catalog.path",
        "a shop's",
    ]
    assert main(words) == 0
    ((program, command),) = started
    assert program == sys.executable
    assert command[1:] == [
        *("-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2", "--max-restarts=1"),
        *("--module", "launch.cli", "pretrain", "--catalog.path", "a shop's"),
        *("--trainer.devices", "2"),
    ]
    assert main([*words, "--dry_run"]) == 0
    assert shlex.split(capsys.readouterr().out) == command
    assert len(started) == 1


def test_several_machines_are_told_what_to_start_or_start_their_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr(local.os, "execv", lambda _, words: started.append(words))
    words = ["launch", "finetune", "--nodes", "2", "--devices", "4", "--name", "ours"]
    assert main(words) == 0
    assert not started
    shown = shlex.split(capsys.readouterr().out)
    assert {"--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=ours"} < set(shown)
    assert main([*words, "--rdzv_endpoint", "first:29400"]) == 0
    (command,) = started
    assert "--rdzv-endpoint=first:29400" in command
    assert command[-5:] == ["finetune", "--trainer.nodes", "2", "--trainer.devices", "4"]


STUB = """#!{python}
import json, os, signal, sys, time
from pathlib import Path
Path("words").write_text(json.dumps(sys.argv[1:]))
signal.signal(signal.SIGUSR1, lambda *_: (Path("heard").touch(), os._exit(75)))
Path("began").touch()
if "KEEP" in os.environ:
    Path(os.environ["VITRINE_PROGRESS_FILE"]).touch()
if os.environ["CODE"] == "wait":
    time.sleep(60)
os._exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def batch(shims: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a batch script in which the training is a stub that ends with `code`."""
    stub = Path("a stub's python")
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    Path(ASKED.work).mkdir(parents=True)

    def start(code: object, job: Job = JOB, **environment: str) -> subprocess.Popen[str]:
        text = batch_script(job, ASKED, str(stub.resolve()), Path.cwd())
        Path("job.sbatch").write_text(text)
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "first", "CODE": str(code)}
        return subprocess.Popen(
            ["bash", "job.sbatch"], env={**os.environ, **slurm, **environment}, text=True
        )

    return start


@pytest.mark.parametrize("code", [0, 1, 2, 75, 77, 127, 143])
def test_a_job_that_goes_on_is_queued_again_and_no_other(code: int, batch: Any) -> None:
    assert batch(code).wait(30) == code
    found = [line for line in calls("scontrol") if "requeue" in line]
    assert found == (["scontrol requeue 7"] if code == RESUMABLE else [])


def test_a_cancelled_job_is_not_queued_again(batch: Any) -> None:
    assert batch(75, STATE="COMPLETING").wait(30) == 75
    assert not [line for line in calls("scontrol") if "requeue" in line]


def requeued() -> int:
    return len([line for line in calls("scontrol") if "requeue" in line])


def test_a_job_is_queued_again_so_often_at_most(batch: Any) -> None:
    assert batch(75, KEEP="1", SLURM_RESTART_COUNT="99").wait(30) == 75
    assert requeued() == 1
    assert batch(75, KEEP="1", SLURM_RESTART_COUNT="100").wait(30) == 75
    assert requeued() == 1


def test_a_job_that_keeps_nothing_twice_in_a_row_is_not_queued_again(
    batch: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for keeps, expected in ((True, 1), (False, 2), (True, 3), (True, 4), (False, 5), (False, 5)):
        assert batch(75, **({"KEEP": "1"} if keeps else {})).wait(30) == 75
        assert requeued() == expected
    assert "stopped twice before anything was kept; not queued again" in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_batch_shell_reaches_the_training(
    number: signal.Signals, batch: Any
) -> None:
    running = batch("wait")
    wait_for(Path("began").exists)
    running.send_signal(number)
    assert running.wait(30) == 75
    assert Path("heard").exists()
    assert [line for line in calls("scontrol") if "requeue" in line]


def test_every_word_reaches_the_training_as_it_was_given(batch: Any) -> None:
    assert batch(0, replace(JOB, runs=(HARD_WORDS,))).wait(30) == 0
    words = json.loads(Path("words").read_text())
    assert tuple(words[-len(HARD_WORDS) :]) == HARD_WORDS
    assert "--rdzv-endpoint=first:20007" in words
    assert "--rdzv-id=7" in words


def test_each_task_of_an_array_runs_its_own(batch: Any) -> None:
    for task in range(2):
        assert batch(0, SWEEP, SLURM_ARRAY_TASK_ID=str(task)).wait(30) == 0
        assert json.loads(Path("words").read_text())[-1] == f"out-{task}"


def wait_for(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("codes", "signalled", "status"),
    [
        ([1, -15], False, 1),
        ([-9], False, 137),
        ([75, 1], False, 75),
        ([-15, 2], False, 2),
        ([130, 130], True, 130),
        ([-15, -15], True, 75),
        ([-15], False, 143),
        ([1], True, 1),
    ],
)
def test_one_status_stands_for_all_processes(
    codes: list[int], signalled: bool, status: int
) -> None:
    assert combined_status(codes, signalled) == status


def test_the_status_of_a_stopped_training_is_that_of_the_training() -> None:
    stopping = pytest.importorskip("launch.graceful_stop")
    assert stopping.RESUMABLE == RESUMABLE


MEMBER = """
import os, signal, sys, time
from pathlib import Path
code, folder = sys.argv[1], Path(sys.argv[2])
name = os.environ["RANK"] + "-" + os.environ["TORCHELASTIC_RESTART_COUNT"]
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda got, _: ((folder / f"heard-{name}-{int(got)}").touch(), os._exit(75)))
(folder / f"began-{name}").touch()
if code == "wait":
    time.sleep(60)
sys.exit(int(code))
"""


def start_agent(tmp_path: Path, code: object, restarts: int = 1) -> subprocess.Popen[bytes]:
    member = tmp_path / "member.py"
    member.write_text(MEMBER)
    command = [sys.executable, "-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", str(member), str(code), str(tmp_path)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def marks(folder: Path, prefix: str) -> set[str]:
    return {path.name.removeprefix(f"{prefix}-") for path in folder.glob(f"{prefix}-*")}


@pytest.mark.parametrize(("code", "starts"), [(1, {"0", "1"}), (2, {"0"}), (75, {"0"}), (0, {"0"})])
def test_only_what_may_end_otherwise_is_started_again(
    code: int, starts: set[str], tmp_path: Path
) -> None:
    assert start_agent(tmp_path, code).wait(120) == code
    assert {name.split("-")[1] for name in marks(tmp_path, "began")} == starts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_every_process_and_nothing_is_started_again(
    number: signal.Signals, tmp_path: Path
) -> None:
    agent = start_agent(tmp_path, "wait")
    wait_for(lambda: marks(tmp_path, "began") == {"0-0", "1-0"}, 120)
    agent.send_signal(number)
    assert agent.wait(60) == 75
    assert marks(tmp_path, "heard") == {f"{rank}-0-{int(number)}" for rank in range(2)}
    assert marks(tmp_path, "began") == {"0-0", "1-0"}


MEETING = """
import os, pathlib, sys
import torch.distributed as dist
attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
dist.init_process_group("gloo")
store = dist.distributed_c10d._get_default_store()
pathlib.Path(sys.argv[1], f"found-{attempt}-{rank}-{store.check(['mine'])}").touch()
dist.barrier()
store.set("mine", "left by those before")
dist.barrier()
os._exit(0 if attempt == "2" else 1)
"""


def test_processes_that_begin_again_find_nothing_of_those_before(tmp_path: Path) -> None:
    """Or they wait for addresses where nobody is any more, now and then for ever."""
    script = tmp_path / "meeting.py"
    script.write_text(MEETING)
    command = [sys.executable, "-m", "launch.submit.agent", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "--max-restarts=2", str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert marks(tmp_path, "found") == {f"{n}-{rank}-False" for n in range(3) for rank in range(2)}


def test_nodes_that_cannot_meet_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launch.submit.agent", "--nnodes=2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=nowhere.invalid:29400", "--rdzv-id=x"]
    command += ["--rdzv-conf=read_timeout=2", "none.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert (
        "vitrine: the nodes cannot meet at nowhere.invalid:29400; start the same command"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_before_anything_began_ends_quietly(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys; from launch.submit import agent; listen = agent.SignalForwarder.listen;"
        f"agent.SignalForwarder.listen = lambda self: (listen(self), os.kill(os.getpid(), {int(number)}));"
        "sys.exit(agent.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (status, b"")


TINY = """
encoder:
  width: 32
  text:
    vocab_size: 300
    config: {model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
             intermediate_size: 64}
  image:
    image_size: 32
    config: {model_type: vit, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
             intermediate_size: 64, patch_size: 16}
  sequence: {layers: 1, heads: 2}
data: {rows: 2, max_broken: 0.2}
trainer: {accelerator: cpu, max_steps: 150, checkpoint_every: 20, progress: false}
"""


@pytest.mark.slow
@pytest.mark.fault
def test_a_training_on_two_devices_stops_when_told_and_goes_on(
    demo_world: Path, tmp_path: Path
) -> None:
    config, output = tmp_path / "tiny.yaml", tmp_path / "my encoder"
    config.write_text(TINY)
    command = [sys.executable, "-m", "launch.cli", "launch", "pretrain", "--devices", "2"]
    command += ["--config", str(config), "--catalog.path", str(demo_world / "home")]
    command += ["--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = tmp_path / "told"
    with told.open("w") as log:
        running = subprocess.Popen(command, env=environment, stderr=log)

    def checkpoints() -> list[Path]:
        assert running.poll() is None, told.read_text()
        return list(tmp_path.glob("my encoder.work/**/written.json"))

    try:
        wait_for(checkpoints, 240)
        running.send_signal(signal.SIGUSR1)
        assert running.wait(120) == RESUMABLE, told.read_text()
    finally:
        running.terminate()
        running.wait()
    assert not output.exists()
    newest = max(tmp_path.glob("my encoder.work/**/written.json"), key=os.path.getmtime)
    facts = json.loads(newest.read_text())
    assert facts["world_size"] == 2
    assert f"after step {facts['step']};" in told.read_text()
    again = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert f"resuming at step {facts['step']}" in again.stderr
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["config"]["trainer"]["devices"] == 2
