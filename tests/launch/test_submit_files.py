"""Batch scripts and manifests: equal to approved files, valid bash, and what the cluster accepts."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.yaml_files import dump_yaml, parse_yaml
from launch.submit.kubernetes import manifests
from tests.launch.submit_jobs import ASKED, JOB, documents, scripts, written

GOLDEN = Path(__file__).with_name("golden")


@pytest.mark.parametrize("name", sorted(written()))
def test_submitted_files_equal_the_approved_ones(name: str) -> None:
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
