"""Writes the manifest of a job for Kubernetes, and submits it.

A PyTorchJob needs Kubeflow's training operator in the cluster, a JobSet the JobSet controller. Either
starts an agent in each pod; a pod that ends before its work is done is started again, and the
training resumes from its newest checkpoint, which is on the volume that all pods share.
"""

from pathlib import Path
from typing import Any

from catalog.errors import VitrineError
from catalog.yaml_files import dump_yaml
from launch.submit.config import PORT, Job, LaunchOptions
from launch.submit.local import AGENT, process_arguments, rendezvous_arguments
from launch.submit.submission import submit_script

GRACE = 60
"""Seconds between SIGTERM and SIGKILL, for the checkpoint."""
WORKERS = "workers"

Manifest = dict[str, Any]


def submit_to_kubernetes(job: Job, options: LaunchOptions) -> None:
    """Applies the manifests; with `dry_run`, prints them instead."""
    if not options.image:
        raise VitrineError(
            "--on kubernetes needs --image, a container image that holds Vitrine; Containerfile makes "
            "one."
        )
    if not options.mount.startswith("/"):
        raise VitrineError(
            f"--mount {options.mount!r} is where the shared volume is in the container; it takes an "
            "absolute path, such as /work."
        )
    text = dump_yaml(manifests(job, options))
    path = Path(options.work) / f"{job.name}.yaml"
    submit_script(text, path, ["kubectl", "apply", "-f"], options.dry_run)


def manifests(job: Job, options: LaunchOptions) -> list[Manifest]:
    """One for each run of a sweep."""
    make = {"pytorchjob": pytorch_job, "jobset": job_set}[options.kind]
    several = len(job.runs) > 1
    return [
        make(f"{job.name}-{number}" if several else job.name, run, job, options)
        for number, run in enumerate(job.runs)
    ]


def pytorch_job(name: str, run: tuple[str, ...], job: Job, options: LaunchOptions) -> Manifest:
    """`kubeflow.org/v1`. The operator restarts pods in place and makes a service for each."""
    where = rendezvous_arguments(job.nodes, f"{name}-worker-0:{PORT}", name)
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(name, options),
        "spec": {
            "nprocPerNode": str(job.devices),
            # The operator counts the restarts of all pods together.
            "runPolicy": {"backoffLimit": job.restarts * job.nodes, "cleanPodPolicy": "Running"},
            "elasticPolicy": {
                "rdzvBackend": "c10d",
                "rdzvHost": f"{name}-worker-0",
                "rdzvPort": PORT,
                "rdzvId": name,
                "minReplicas": job.nodes,
                "maxReplicas": job.nodes,
                "maxRestarts": job.restarts,
            },
            "pytorchReplicaSpecs": {
                "Worker": {
                    "replicas": job.nodes,
                    "restartPolicy": "OnFailure",
                    "template": {"spec": _pod(where, run, job, options)},
                }
            },
        },
    }


def job_set(name: str, run: tuple[str, ...], job: Job, options: LaunchOptions) -> Manifest:
    """`jobset.x-k8s.io/v1alpha2`. The controller restarts all pods when one has failed."""
    where = rendezvous_arguments(job.nodes, f"{name}-{WORKERS}-0-0.{name}:{PORT}", name)
    pod = {"restartPolicy": "OnFailure", **_pod(where, run, job, options)}
    workers = {
        "parallelism": job.nodes,
        "completions": job.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(name, options),
        "spec": {
            "failurePolicy": {"maxRestarts": job.restarts},
            "replicatedJobs": [{"name": WORKERS, "replicas": 1, "template": {"spec": workers}}],
        },
    }


def _metadata(name: str, options: LaunchOptions) -> Manifest:
    namespace = {"namespace": options.namespace} if options.namespace else {}
    return {"name": name, **namespace}


def _pod(where: list[str], run: tuple[str, ...], job: Job, options: LaunchOptions) -> Manifest:
    command = ["python", *AGENT, *where, *process_arguments(job), *run]
    resources: Manifest = {"requests": {"cpu": str(job.cpus * job.devices)}}
    if job.gpus:
        resources["limits"] = {"nvidia.com/gpu": job.devices}
    return {
        "terminationGracePeriodSeconds": GRACE,
        "containers": [
            {
                "name": "pytorch",  # the operator looks for a container of this name
                "image": options.image,
                # $(…) would be filled in by Kubernetes.
                "command": [word.replace("$(", "$$(") for word in command],
                "workingDir": options.mount,
                "env": [{"name": "VITRINE_CACHE", "value": f"{options.mount}/.cache/vitrine"}],
                "ports": [{"name": "pytorchjob-port", "containerPort": PORT}],
                "resources": resources,
                "volumeMounts": [
                    {"name": "shared", "mountPath": options.mount},
                    {"name": "memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": options.claim}},
            # Loaders and NCCL hand data on through /dev/shm, of which a container has 64 MB.
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
