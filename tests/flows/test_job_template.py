"""The pod of a run, rendered as Prefect's worker renders it, without a cluster.

With the package ``prefect-kubernetes`` installed, its own worker's class and the models of the
Kubernetes client look at it too.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import jsonschema
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseJobConfiguration
from pydantic import Field

from flows.job_template import GRACE_S, make_job_template
from flows.manifests import KUBERNETES_FILE, make_files
from pipeline.settings.training import LaunchSettings

FILE = yaml.safe_load(make_files()[KUBERNETES_FILE])
DEPLOYMENTS = {entry["entrypoint"].partition(":")[2]: entry for entry in FILE["deployments"]}
IMAGE = "registry.example/promptcot:1"


class JobConfiguration(BaseJobConfiguration):
    """What prefect-kubernetes adds, as far as the template is concerned."""

    annotations: dict[str, str] = Field(default_factory=dict)
    namespace: str
    job_manifest: dict[str, Any]
    cluster_config: Any = None
    job_watch_timeout_seconds: int | None = None
    pod_watch_timeout_seconds: int
    stream_output: bool


def variables_of(function: str, **chosen: Any) -> dict[str, Any]:
    """Job variables of a deployment, as they are after ``prefect deploy``."""
    return {**DEPLOYMENTS[function]["work_pool"]["job_variables"], "image": IMAGE, **chosen}


def render(function: str, kind: Any = JobConfiguration, **chosen: Any) -> Any:
    values = variables_of(function, **chosen)
    return asyncio.run(kind.from_template_and_values(make_job_template(), values))


def pod_of(configuration: Any) -> dict[str, Any]:
    return dict(configuration.job_manifest["spec"]["template"]["spec"])


def places_left(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [place for item in value.values() for place in places_left(item)]
    if isinstance(value, list):
        return [place for item in value for place in places_left(item)]
    return [value] if isinstance(value, str) and "{{" in value else []


@pytest.mark.parametrize("function", sorted(DEPLOYMENTS))
def test_every_deployment_fills_the_template(function: str) -> None:
    schema = make_job_template()["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(variables_of(function), schema)
    configuration = render(function, command="prefect flow-run execute", env={"A": "b"})
    assert places_left(configuration.job_manifest) == []
    container = pod_of(configuration)["containers"][0]
    gpus = variables_of(function)["gpus"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == gpus
    assert container["image"] == IMAGE


def test_a_pod_is_an_ordinary_user_with_the_shared_volume_and_the_keys_of_a_secret() -> None:
    pod = pod_of(render("train_sft"))
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"]
    container = pod["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    claims = {
        v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert claims[mounts["/opt/promptcot-mamba/runs"]] == "promptcot-runs"
    assert container["envFrom"] == [{"secretRef": {"name": "promptcot-keys", "optional": True}}]
    plain = {entry["name"]: entry["value"] for entry in container["env"]}
    assert [name for name in plain if "KEY" in name or "TOKEN" in name] == []
    # Everything that is written goes to a volume of this user's group.
    assert {plain["HOME"], plain["PREFECT_HOME"].rpartition("/")[0]} == {"/scratch"}


def test_a_stopped_pod_has_the_time_of_a_checkpoint_and_is_not_retried_by_kubernetes() -> None:
    configuration = render("train_sft")
    assert pod_of(configuration)["terminationGracePeriodSeconds"] == GRACE_S
    assert LaunchSettings().stop_grace_s < GRACE_S
    # 0 has Prefect schedule the run anew, which continues from the volume.
    assert configuration.job_manifest["spec"]["backoffLimit"] == 0


def test_a_pool_chooses_nodes_namespace_and_tolerations() -> None:
    taint = {"key": "pool", "operator": "Equal", "value": "h100", "effect": "NoSchedule"}
    chosen = {
        "namespace": "lab",
        "node_selector": {"gpu": "h100"},
        "tolerations": [taint],
        "grace_seconds": 90,
    }
    jsonschema.validate(variables_of("evaluate", **chosen), make_job_template()["variables"])
    configuration = render("evaluate", **chosen)
    pod = pod_of(configuration)
    assert configuration.job_manifest["metadata"]["namespace"] == "lab"
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"gpu": "h100"}, [taint])
    assert pod["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize(
    "wrong",
    [{"gpus": -1}, {"gpus": "many"}, {"tolerations": [{"keys": "x"}]}, {"grace_seconds": 0}],
    ids=str,
)
def test_wrong_variables_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(variables_of("evaluate", **wrong), make_job_template()["variables"])


def test_an_image_must_be_named() -> None:
    without = {k: v for k, v in variables_of("evaluate").items() if k != "image"}
    with pytest.raises(jsonschema.ValidationError, match="'image' is a required property"):
        jsonschema.validate(without, make_job_template()["variables"])


@pytest.mark.parametrize("function", sorted(DEPLOYMENTS))
def test_the_kubernetes_worker_takes_it(function: str) -> None:
    worker = pytest.importorskip(
        "prefect_kubernetes.worker", reason="pip install prefect-kubernetes"
    )
    configuration = render(function, worker.KubernetesWorkerJobConfiguration)
    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="demo-sft-1")
    configuration.prepare_for_flow_run(run)
    job = configuration.job_manifest
    assert unknown_fields(job, "V1Job") == [
        # Which the worker's own check demands, and Kubernetes ignores.
        "V1PodSpec.completions",
        "V1PodSpec.parallelism",
    ]
    environment = {
        entry["name"]: entry["value"] for entry in pod_of(configuration)["containers"][0]["env"]
    }
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert environment["PREFECT__FLOW_RUN_ID"] == str(run.id)
    assert environment["HOME"] == "/scratch"


PLAIN = {"str": str, "int": int, "bool": bool}


def unknown_fields(value: Any, kind: str) -> list[str]:
    """Keys of a manifest that the Kubernetes client's models do not have, and values not theirs."""
    from kubernetes_asyncio.client import models

    if kind in PLAIN:
        return [] if type(value) is PLAIN[kind] else [f"{value!r} is no {kind}"]
    model = getattr(models, kind, None)
    if model is None:
        return []
    if not isinstance(value, dict):
        return [f"{value!r} is no {kind}"]
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    found = []
    for key, item in value.items():
        if key not in names:
            found.append(f"{kind}.{key}")
            continue
        inner = model.openapi_types[names[key]]
        for entry in item if inner.startswith("list[") else [item]:
            found += unknown_fields(entry, inner.removeprefix("list[").removesuffix("]"))
    return sorted(found)
