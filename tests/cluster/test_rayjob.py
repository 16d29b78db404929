"""cluster/rayjob.yaml against the fields that KubeRay and Kubernetes document, and against what this package needs.

The schema below names the fields of ray.io/v1 (KubeRay 1.5.1) and of pods that a manifest of ours may have, and refuses
any other: KubeRay's own is a megabyte, and lets what it does not know pass.
"""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from d3m_ray.version import __version__

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "cluster" / "rayjob.yaml").read_text()
RAY_JOB = yaml.safe_load(TEXT)
CLUSTER = RAY_JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]

Schema = dict[str, Any]
STRING: Schema = {"type": "string", "minLength": 1}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
PREFIX: Schema = {"type": "string", "pattern": "^[a-z0-9][-a-z0-9]*$", "maxLength": 50}
QUANTITY: Schema = {
    "anyOf": [COUNT, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}],
}


def record(required: str = "", **fields: Schema) -> Schema:
    """An object of these fields and no other."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def records(required: str = "", **fields: Schema) -> Schema:
    return {"type": "array", "items": record(required, **fields), "minItems": 1}


STRINGS: Schema = {"type": "object", "additionalProperties": STRING}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
CONTAINERS = records(
    "name image resources",
    name=NAME,
    image=STRING,
    env=records("name", name=STRING, value=STRING, valueFrom={"type": "object"}),
    envFrom=records("secretRef", secretRef=record("name", name=NAME, optional=BOOLEAN)),
    ports=records("containerPort", name=NAME, containerPort=COUNT),
    resources=record("requests limits", requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=records("name mountPath", name=NAME, mountPath=STRING, readOnly=BOOLEAN),
)
POD = record(
    "spec",
    spec=record(
        "containers",
        containers=CONTAINERS,
        serviceAccountName=NAME,
        volumes=records("name", name=NAME, emptyDir=record(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY)),
    ),
)
SCHEMA = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"oneOf": [record("name", name=NAME), record("generateName", generateName=PREFIX)]},
    spec=record(
        "entrypoint rayClusterSpec",
        entrypoint=STRING,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes=BOOLEAN,
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=record(
            "headGroupSpec",
            rayVersion=STRING,
            authOptions=record("mode", mode={"enum": ["token", "disabled"]}),
            enableInTreeAutoscaling=BOOLEAN,
            autoscalerOptions=record(
                idleTimeoutSeconds=COUNT, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}
            ),
            headGroupSpec=record("rayStartParams template", rayStartParams=STRINGS, template=POD),
            workerGroupSpecs=records(
                "groupName minReplicas maxReplicas rayStartParams template",
                groupName=NAME,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=STRINGS,
                template=POD,
            ),
        ),
    ),
)


def errors(manifest: Any) -> list[str]:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(manifest)]


def containers() -> list[dict[str, Any]]:
    return [container for group in GROUPS for container in group["template"]["spec"]["containers"]]


def test_its_fields_are_documented_ones() -> None:
    assert errors(RAY_JOB) == []


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        (("spec", "backoffLimits"), 2, "backoffLimits"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "0 is not of type"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"), "0", "'0' is not of type"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens", "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "container"), [], "container"),
    ],
)
def test_a_wrong_field_is_refused(path: tuple[str | int, ...], value: object, wrong: str) -> None:
    """Else the test above could not fail."""
    manifest = copy.deepcopy(RAY_JOB)
    *parents, last = path
    place: Any = manifest
    for key in parents:
        place = place[key]
    place[last] = value
    assert any(wrong in error for error in errors(manifest))


def test_ray_and_the_image_are_those_of_this_package() -> None:
    assert f"\nray=={CLUSTER['rayVersion']}\n" in (ROOT / "requirements.lock").read_text()
    assert {container["image"] for container in containers()} == {f"d3m-ray:{__version__}"}


def test_calls_need_a_token_and_no_secret_stands_here() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert {entry["secretRef"]["name"] for container in containers() for entry in container["envFrom"]} == {
        "d3m-ray-store"
    }
    assert not [container for container in containers() if "env" in container]


def test_no_trial_goes_to_the_head_and_no_worker_waits_for_work() -> None:
    assert CLUSTER["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert CLUSTER["enableInTreeAutoscaling"]
    for group in CLUSTER["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    assert RAY_JOB["spec"]["shutdownAfterJobFinishes"]


def test_a_pod_gets_what_it_asks_for() -> None:
    """Ray counts the limits. Its objects lie in memory: the folder for them is mounted, and fits beside the rest."""
    for group in GROUPS:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        (volume,) = group["template"]["spec"]["volumes"]
        (mount,) = container["volumeMounts"]
        assert mount == {"name": volume["name"], "mountPath": "/dev/shm"}
        memory, shared = (int(size.removesuffix("Gi")) for size in (
            container["resources"]["limits"]["memory"], volume["emptyDir"]["sizeLimit"]
        ))  # fmt: skip
        assert shared <= memory / 4


def test_the_sweep_fits_a_worker_and_keeps_its_results() -> None:
    words = RAY_JOB["spec"]["entrypoint"].split()
    assert words[:2] == ["d3m-ray", "run"]
    assert words[words.index("--store") + 1].startswith("s3://YOUR-BUCKET/")
    assert "--address" not in words, "Ray tells its jobs the address"
    cpus = int(words[words.index("--cpus-per-trial") + 1])
    assert all(int(c["resources"]["limits"]["cpu"]) % cpus == 0 for c in containers()[1:])


def test_there_are_two_edits() -> None:
    edits = dict(re.findall(r"# EDIT (\d): (?:the |where the )(\w+)", TEXT))
    assert edits == {"1": "bucket", "2": "image"}
