"""The files of work pools, made from the catalog: ``python -m flows.deployments --write``.

``prefect.yaml`` deploys to processes of one machine; ``deploy/kubernetes/prefect.yaml`` to a
cluster, whose pool takes ``deploy/kubernetes/base-job-template.json``. All are committed, and a
test holds them equal to what this module makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.catalog import CATALOG, POOLS, CatalogEntry, Target
from flows.job_template import IMAGE_FOLDER, make_job_template
from flows.server import HEARTBEAT_S

IMAGE_VARIABLE = "PROMPTCOT_IMAGE"
"""Environment variable with the container image, for deploying to Kubernetes."""
PROCESS_FILE = Path("prefect.yaml")
KUBERNETES_FILE = Path("deploy/kubernetes/prefect.yaml")
TEMPLATE_FILE = Path("deploy/kubernetes/base-job-template.json")
DEPLOY_FILES: dict[Target, Path] = {"process": PROCESS_FILE, "kubernetes": KUBERNETES_FILE}
"""From the repository's root, by target."""

_HEAD = """# Made from flows/catalog.py by: python -m flows.deployments --write
# A test compares them.
# {use}
"""
_USE: dict[Target, str] = {
    "process": "prefect deploy --all, then: prefect worker start --pool promptcot-process",
    "kubernetes": (
        f"{IMAGE_VARIABLE}=… prefect deploy --all --prefect-file deploy/kubernetes/prefect.yaml"
    ),
}


def make_files() -> dict[Path, str]:
    """Every file by its path from the repository's root."""
    template = json.dumps(make_job_template(), indent=2, ensure_ascii=False)
    return {
        PROCESS_FILE: _make_yaml("process"),
        KUBERNETES_FILE: _make_yaml("kubernetes"),
        TEMPLATE_FILE: template + "\n",
    }


def write_files(root: Path) -> list[Path]:
    """Write what differs; returns those files.

    Args:
        root: The repository.
    """
    written = []
    for name, text in make_files().items():
        path = root / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(name)
    return written


def _make_yaml(target: Target) -> str:
    import yaml  # type: ignore[import-untyped]

    content: dict[str, Any] = {"name": "promptcot-mamba"}
    if target == "kubernetes":
        folder = {"prefect.deployments.steps.set_working_directory": {"directory": IMAGE_FOLDER}}
        content["pull"] = [folder]
    content["deployments"] = [_make_deployment(entry, target) for entry in CATALOG]
    body: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return _HEAD.format(use=_USE[target]) + body


def _make_deployment(entry: CatalogEntry, target: Target) -> dict[str, Any]:
    return {
        "name": target,
        "entrypoint": entry.entrypoint,
        "description": entry.description,
        "tags": entry.tags,
        "work_pool": {"name": POOLS[target], "job_variables": _job_variables(entry, target)},
    }


def _job_variables(entry: CatalogEntry, target: Target) -> dict[str, Any]:
    if target == "process":
        # A worker started outside the repository does not read [tool.prefect] of pyproject.toml.
        return {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}}
    wanted = entry.resources
    return {
        # Filled in from the environment of whoever deploys.
        "image": f"{{{{ ${IMAGE_VARIABLE} }}}}",
        "gpus": wanted.gpus,
        "cpu_request": str(wanted.cpus),
        "memory": f"{wanted.memory_gib}Gi",
    }
