"""The Kubernetes work pool's base job template: what one run's pod is.

A run is one Job with one pod. It runs as an ordinary user without capabilities, mounts the shared
volume at ``runs/`` (finished work survives the pod), takes API keys from a Secret, and has the time
of a checkpoint between SIGTERM and the end. Kubernetes itself never retries (``backoffLimit`` 0):
on SIGTERM (a drained or preempted node) Prefect schedules the run again, and it continues from the
volume.
"""

from __future__ import annotations

from typing import Any

from flows.server import HEARTBEAT_S
from pipeline.settings.training import LaunchSettings

IMAGE_FOLDER = "/opt/promptcot-mamba"
"""Where an image holds the repository; its ``runs/`` is the shared volume."""
GRACE_S = int(LaunchSettings().stop_grace_s) + 60
"""A training's last step and checkpoint, and a minute for the processes around it."""
_USER = 1000


def make_job_template() -> dict[str, Any]:
    """The template as Prefect stores it with a work pool: places to fill, and their schema."""
    return {
        "job_configuration": {
            "command": "{{ command }}",
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "annotations": "{{ annotations }}",
            "name": "{{ name }}",
            "namespace": "{{ namespace }}",
            "job_manifest": _job(),
            "cluster_config": "{{ cluster_config }}",
            "job_watch_timeout_seconds": "{{ job_watch_timeout_seconds }}",
            "pod_watch_timeout_seconds": "{{ pod_watch_timeout_seconds }}",
            "stream_output": "{{ stream_output }}",
        },
        "variables": {
            "type": "object",
            "properties": _fields(),
            "required": ["image"],
            "definitions": _DEFINITIONS,
        },
    }


def _job() -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": "{{ name }}-",
            "namespace": "{{ namespace }}",
            "labels": "{{ labels }}",
            "annotations": "{{ annotations }}",
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "ttlSecondsAfterFinished": "{{ finished_job_ttl }}",
            "template": {"spec": _pod()},
        },
    }


def _pod() -> dict[str, Any]:
    return {
        # Prefect looks for these two inside the pod's spec and ignores them in the Job's.
        "completions": 1,
        "parallelism": 1,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": "{{ grace_seconds }}",
        "serviceAccountName": "{{ service_account_name }}",
        # The flow speaks to Prefect's server and to teachers, never to the cluster.
        "automountServiceAccountToken": False,
        "nodeSelector": "{{ node_selector }}",
        "tolerations": "{{ tolerations }}",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            # Changing the owner of millions of shards at every start would take hours.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "{{ seccomp_profile }}"},
        },
        "containers": [_container()],
        "volumes": [
            {"name": "runs", "persistentVolumeClaim": {"claimName": "{{ runs_claim }}"}},
            {"name": "scratch", "emptyDir": {}},
            # Data loaders and NCCL share memory; a container's own /dev/shm has 64 MiB.
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": "{{ shared_memory }}"},
            },
        ],
    }


def _container() -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": "{{ gpus }}"}
    return {
        "name": "prefect-job",
        "image": "{{ image }}",
        "imagePullPolicy": "{{ image_pull_policy }}",
        "args": "{{ command }}",
        "workingDir": IMAGE_FOLDER,
        # The worker adds its own variables and those of ``env`` in front; these stay.
        "env": [
            {"name": name, "value": value}
            for name, value in (
                ("HOME", "/scratch"),
                ("PREFECT_HOME", "/scratch/prefect"),
                ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S)),
                ("DO_NOT_TRACK", "1"),
                ("RAY_USAGE_STATS_ENABLED", "0"),
            )
        ],
        # PROMPTCOT_API_KEY, HF_TOKEN, PREFECT_API_AUTH_STRING, … by their own names.
        "envFrom": [{"secretRef": {"name": "{{ secret }}", "optional": True}}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "{{ cpu_request }}", "memory": "{{ memory }}", **gpus},
            # No limit of processor time: throttled data loading leaves GPUs idle.
            "limits": {"memory": "{{ memory }}", **gpus},
        },
        "volumeMounts": [
            {"name": "runs", "mountPath": f"{IMAGE_FOLDER}/runs"},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def _text(title: str, description: str, default: str | None = None) -> dict[str, Any]:
    found = {"title": title, "type": "string", "description": description}
    return found if default is None else {**found, "default": default}


def _number(title: str, description: str, default: int, minimum: int = 0) -> dict[str, Any]:
    return {
        "title": title,
        "type": "integer",
        "minimum": minimum,
        "default": default,
        "description": description,
    }


def _table(title: str, description: str) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": description,
    }


def _choice(title: str, description: str, choices: list[str]) -> dict[str, Any]:
    return {**_text(title, description, choices[0]), "enum": choices}


def _fields() -> dict[str, Any]:
    """What a pool or a deployment may choose; the form of the work pool's page."""
    return {**_place_fields(), **_resource_fields(), **_worker_fields()}


def _place_fields() -> dict[str, Any]:
    return {
        "image": _text(
            "Image", f"Container image with the repository and its packages in {IMAGE_FOLDER}."
        ),
        "image_pull_policy": _choice(
            "Image Pull Policy", "When the image is pulled.", ["IfNotPresent", "Always", "Never"]
        ),
        "namespace": _text("Namespace", "Where Jobs are created.", "promptcot"),
        "service_account_name": _text(
            "Service Account", "Of the pod; it needs no permissions.", "default"
        ),
        "runs_claim": _text(
            "Runs Volume",
            "PersistentVolumeClaim mounted at runs/; ReadWriteMany when several runs share it.",
            "promptcot-runs",
        ),
        "secret": _text(
            "Secret", "Secret whose keys become environment variables.", "promptcot-keys"
        ),
        "node_selector": {
            **_table("Node Selector", "Labels that a node must have."),
            "default": {},
        },
        "tolerations": {
            "title": "Tolerations",
            "type": "array",
            "items": {"$ref": "#/definitions/Toleration"},
            "default": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "description": "Taints of nodes that the pod puts up with.",
        },
        "seccomp_profile": _choice(
            "Seccomp Profile",
            "Unconfined where the runtime's default forbids user namespaces, which the sandbox "
            "of code verification needs.",
            ["RuntimeDefault", "Unconfined"],
        ),
    }


def _resource_fields() -> dict[str, Any]:
    return {
        "gpus": _number("GPUs", "nvidia.com/gpu of the one pod.", 1),
        "cpu_request": _text("CPU Request", "Processors, e.g. 8 or 500m.", "8"),
        "memory": _text("Memory", "Request and limit, e.g. 64Gi.", "64Gi"),
        "shared_memory": _text("Shared Memory", "Size of /dev/shm, part of the memory.", "16Gi"),
        "grace_seconds": _number(
            "Grace Period",
            "Seconds between SIGTERM and SIGKILL; more than training.launch.stop_grace_s.",
            GRACE_S,
            30,
        ),
        "finished_job_ttl": _number(
            "Finished Job TTL", "Seconds that a finished Job is kept to look at.", 86_400
        ),
    }


def _worker_fields() -> dict[str, Any]:
    """What every template of Prefect's Kubernetes worker has."""
    either = {"default": None}
    return {
        "name": {"title": "Name", **_optional("string"), **either},
        "command": {"title": "Command", **_optional("string"), **either},
        "env": _table("Environment Variables", "Added to the pod's; no keys here."),
        "labels": _table("Labels", "Of Job and pod."),
        "annotations": _table("Annotations", "Of Job and pod."),
        "stream_output": {
            "title": "Stream Output",
            "type": "boolean",
            "default": True,
            "description": "Whether the worker's log repeats what the pod prints.",
        },
        "job_watch_timeout_seconds": {
            "title": "Job Watch Timeout",
            **_optional("integer"),
            **either,
            "description": "Longest silence of a Job, seconds; empty waits for ever.",
        },
        "pod_watch_timeout_seconds": _number(
            "Pod Watch Timeout",
            "Seconds until a pod must have started; a GPU node may have to be bought first.",
            1800,
            1,
        ),
        "cluster_config": {
            "anyOf": [{"$ref": "#/definitions/KubernetesClusterConfig"}, {"type": "null"}],
            "default": None,
            "description": "Block with a cluster's address; empty: the cluster of the worker.",
        },
    }


def _optional(kind: str) -> dict[str, Any]:
    return {"anyOf": [{"type": kind}, {"type": "null"}]}


_DEFINITIONS: dict[str, Any] = {
    "Toleration": {
        "title": "Toleration",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "key": {"title": "Key", "type": "string"},
            "operator": {"title": "Operator", "type": "string", "enum": ["Exists", "Equal"]},
            "value": {"title": "Value", "type": "string"},
            "effect": {
                "title": "Effect",
                "type": "string",
                "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
            },
        },
    },
    # As Prefect's own template has it: this is how the server finds the block's type.
    "KubernetesClusterConfig": {
        "title": "KubernetesClusterConfig",
        "type": "object",
        "block_type_slug": "kubernetes-cluster-config",
        "block_schema_references": {},
        "secret_fields": [],
        "required": ["config", "context_name"],
        "properties": {
            "config": {"title": "Config", "type": "object", "additionalProperties": True},
            "context_name": {"title": "Context Name", "type": "string"},
        },
    },
}
