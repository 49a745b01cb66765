"""What deploy/ and docker-compose.yml name exists in the code; and the references in docs/ are current."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from maskwire.cli.app import app
from maskwire.prelabelling.shards import INDEX_VARIABLE, Shard
from maskwire_core.config import DecoderSettings, EncoderSettings, GatewaySettings
from maskwire_core.telemetry import metrics

from deploy.check.custom import Definitions
from testing.paths import ROOT

SETTINGS = {"encoder": EncoderSettings, "decoder": DecoderSettings, "gateway": GatewaySettings}
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted((DEPLOY / "kubernetes/overlays").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [
        (document["metadata"]["name"], document["spec"]["template"]["spec"])
        for path in MANIFESTS
        for document in documents(path)
        if isinstance(document, dict) and document.get("kind") in ("Deployment", "StatefulSet", "Job")
    ]


def known_metrics() -> set[str]:
    """Of encoders, decoders and gateways; of processes; Envoy's that are used."""
    from maskwire_gateway.metrics import Telemetry

    telemetry = Telemetry()
    telemetry.seconds.labels("GET", "/", 200).observe(0.1)
    names = set()
    for registry in (metrics.REGISTRY, telemetry.registry):
        for family in registry.collect():
            names |= {family.name, f"{family.name}_total"} if family.type == "counter" else {family.name}
            if family.type == "histogram":
                names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    for path in (ROOT / "services").rglob("*.py"):
        names |= set(re.findall(r'(?:LiveMetric\(\s*|= )"(maskwire_\w+)"', path.read_text()))
    return names | {"up", "envoy_cluster_upstream_cx_none_healthy"}


def named_metrics(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\b(by|on|ignoring|without)\s*\([^)]*\)', " ", expression)
    functions = {"sum", "max", "rate", "increase", "histogram_quantile", "and", "or"}
    return {name for name in re.findall(r"[a-zA-Z_]\w*", bare) if name not in functions}


def expressions() -> dict[str, str]:
    found = {}
    dashboard = json.loads((DEPLOY / "observe/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for rule in documents(DEPLOY / "observe/alerts.yaml")[0]["groups"][0]["rules"]:
        found[f"alert {rule['alert']}"] = rule["expr"]
    for scaled in documents(DEPLOY / "kubernetes/overlays/gpu/scaling.yaml"):
        for number, trigger in enumerate(scaled["spec"]["triggers"]):
            found[f"scaling of {scaled['metadata']['name']} {number}"] = trigger["metadata"]["query"]
    for document in documents(DEPLOY / "kubernetes/overlays/gpu/scaling.yaml"):
        for number, trigger in enumerate(document["spec"]["triggers"]):
            found[f"trigger {number}"] = trigger["metadata"]["query"]
    return found


@pytest.mark.parametrize("name", expressions())
def test_metrics_that_are_asked_for_exist(name: str) -> None:
    asked = named_metrics(expressions()[name])
    assert asked
    assert asked <= known_metrics()


def test_reasons_in_alerts_exist() -> None:
    code = " ".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    for expression in expressions().values():
        for reason in re.findall(r"[A-Z]+_[A-Z_]+", " ".join(re.findall(r'reason=~?"([^"]*)"', expression))):
            assert f'"{reason}' in code


def test_the_cluster_has_the_same_alerts() -> None:
    (rule,) = (
        document
        for document in documents(DEPLOY / "kubernetes/overlays/gpu/monitoring.yaml")
        if document["kind"] == "PrometheusRule"
    )
    assert rule["spec"] == documents(DEPLOY / "observe/alerts.yaml")[0]


def test_nothing_is_scaled_twice() -> None:
    """By an autoscaler of the base, and by a ScaledObject, of which KEDA makes another."""
    overlay = DEPLOY / "kubernetes/overlays/gpu"
    (kustomization,) = documents(overlay / "kustomization.yaml")
    by_cpu = {
        document["spec"]["scaleTargetRef"]["name"]
        for path in (DEPLOY / "kubernetes/base").glob("*.yaml")
        for document in documents(path)
        if document.get("kind") == "HorizontalPodAutoscaler"
    }
    removed = {
        patch["metadata"]["name"]
        for patch in (yaml.safe_load(each.get("patch", "{}")) for each in kustomization["patches"])
        if patch.get("$patch") == "delete" and patch["kind"] == "HorizontalPodAutoscaler"
    }
    by_queue = {each["spec"]["scaleTargetRef"]["name"] for each in documents(overlay / "scaling.yaml")}
    assert by_queue == {"encoder", "tracker"}
    assert by_queue & by_cpu == removed


def test_runbooks_that_alerts_name_exist() -> None:
    text = (ROOT / "docs/how-to/alerts.md").read_text()
    headings = {re.sub(r"[^a-z0-9 -]", "", line.strip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
    for rule in documents(DEPLOY / "observe/alerts.yaml")[0]["groups"][0]["rules"]:
        page, _, heading = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/how-to/alerts.md"
        assert heading in headings


def named_settings() -> list[tuple[str, str]]:
    """Service and environment variable, as compose, manifests and images name them."""
    found = []
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in ("encoder", "encoder-gpu", "decoder", "gateway"):
        environment = compose["services"][service]["environment"]
        found += [(service.split("-")[0], name) for name in environment]
    for name, pod in pods():
        found += [(name, entry["name"]) for container in pod["containers"] for entry in container.get("env", ())]
    tokens = documents(DEPLOY / "kubernetes/overlays/gpu/tokens.yaml")[0]
    found += [
        (name, part["value"]["name"]) for name in ("encoder", "decoder") for part in tokens if "env" in part["path"]
    ]
    for service in SETTINGS:
        text = (DEPLOY / f"docker/{service}.Dockerfile").read_text()
        found += [(service, name) for name in re.findall(r"(MASKWIRE_\w+)=", text)]
    return found


def test_settings_that_are_named_exist() -> None:
    # compose gives all servers the same; a server does not mind what another has.
    everywhere = {name for settings in SETTINGS.values() for name in settings.model_fields} | {"token"}  # a client's
    named = named_settings()
    assert len(named) > 20
    for service, variable in named:
        assert variable.startswith("MASKWIRE_")
        assert variable.removeprefix("MASKWIRE_").lower() in everywhere, f"{service}: {variable}"


def test_ports_are_those_of_the_servers() -> None:
    envoy = (DEPLOY / "kubernetes/base/envoy.yaml").read_text()
    for service, settings in SETTINGS.items():
        port = settings.model_fields["port"].default
        image = (DEPLOY / f"docker/{service}.Dockerfile").read_text()
        assert f"MASKWIRE_PORT={port}" in image
        assert re.search(rf"^EXPOSE {port}\b", image, re.M)
        assert f"address: {service}, port_value: {port}" in envoy
    for name, pod in pods():
        for container in pod["containers"]:
            ports = {port["containerPort"]: port["name"] for port in container.get("ports", ())}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for kind, action in container.get(probe, {}).items():
                    if kind == "grpc":
                        assert action["port"] in ports, f"{name}: {probe}"  # gRPC probes know no names of ports
                    elif kind in ("httpGet", "tcpSocket"):
                        assert action["port"] in ports.values(), f"{name}: {probe}"


def test_services_that_probes_name_exist() -> None:
    from maskwire.v1 import decoder_pb2, encoder_pb2, tracker_pb2

    services = {
        service.full_name
        for file in (encoder_pb2, decoder_pb2, tracker_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    named = {
        action["service"]
        for _, pod in pods()
        for container in pod["containers"]
        for action in [container.get("readinessProbe", {}).get("grpc", {})]
        if "service" in action
    }
    named |= set(re.findall(r"service_name: (\S+) ", (DEPLOY / "kubernetes/base/envoy.yaml").read_text()))
    assert named == services


def test_images_are_kept_to_decoders_by_the_clients_metadata() -> None:
    from maskwire.transport.calls import IMAGE_HEADER

    assert f"header_name: {IMAGE_HEADER} " in (DEPLOY / "kubernetes/base/envoy.yaml").read_text()


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_restricted_and_end_in_time(name: str, pod: dict[str, Any]) -> None:
    if "securityContext" not in pod:  # a patch; what it is laid over has one
        assert name == "encoder"
        return
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    if name in SETTINGS:
        drain_s = SETTINGS[name].model_fields["drain_s"].default
        sleep_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > drain_s + sleep_s + 5


def job(name: str) -> dict[str, Any]:
    (found,) = documents(DEPLOY / f"kubernetes/jobs/{name}/job.yaml")
    return dict(found["spec"])


def test_the_job_has_the_pods_of_its_shards() -> None:
    spec = job("prelabel")
    command = spec["template"]["spec"]["containers"][0]["command"]
    assert spec["completionMode"] == "Indexed"
    for index in range(spec["completions"]):
        shard = Shard.parse(command[command.index("--shard") + 1], {INDEX_VARIABLE: str(index)})
        assert (shard.number, shard.count) == (index + 1, spec["completions"])


@pytest.mark.parametrize("name", ["prelabel", "merge-shards"])
def test_commands_of_jobs_are_understood_and_fit_each_other(name: str) -> None:
    container = job(name)["template"]["spec"]["containers"][0]
    program, command, *arguments = container["command"]
    assert (program, command) == ("maskwire", name)
    place = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    read = place.make_context(name, list(arguments)).params
    assert (read["boxes"], read["out"]) == (Path("/data/boxes.json"), Path("/data/masks.json"))
    assert container["image"] == "maskwire/decoder:latest"  # which has the client, and is the smallest


@pytest.mark.parametrize("service", SETTINGS)
def test_locks_name_a_hash_for_each_package_and_fit_the_project(service: str) -> None:
    text = (DEPLOY / f"docker/locks/{service}.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.M))
    assert text.count("==") == len(pins) <= text.count("--hash=sha256:")
    assert {"grpcio", "protobuf", "prometheus-client", "opentelemetry-sdk"} <= set(pins)
    assert not {"torch", "torchvision"} & set(pins)
    assert not {name for name in pins if name.startswith(("nvidia", "cuda"))}


def test_references_are_current() -> None:
    """After a change of settings or protos: python docs/generate.py"""
    run = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


DEFINITION = """
kind: CustomResourceDefinition
spec:
  group: example.com
  names: {kind: Thing}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: {type: string}
            kind: {type: string}
            metadata: {type: object}
            spec:
              type: object
              required: [size]
              properties:
                size: {type: integer, minimum: 1}
                labels: {type: object, additionalProperties: {type: string}}
"""


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ("{size: 2, labels: {any: name}}", ""),
        ("{size: 0}", "Thing one: spec.size: 0 is less than the minimum of 1"),
        ("{size: 2, sise: 3}", "Thing one: spec: Additional properties are not allowed ('sise' was unexpected)"),
        ("{}", 'Thing one: spec: "size" is a required property'),
    ],
)
def test_resources_are_checked_by_their_definition(tmp_path: Path, spec: str, wrong: str) -> None:
    (tmp_path / "things.yaml").write_text(DEFINITION)
    thing = f"apiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: one}}\nspec: {spec}\n"
    others = "---\napiVersion: v1\nkind: Service\nmetadata: {name: two}\n"
    assert Definitions(tmp_path).check(thing + others) == ([wrong] if wrong else [], {"Thing"})


def test_what_the_check_lacks_is_said_first(tmp_path: Path) -> None:
    for tool in ("bash", "env", "dirname", "ip", "nsenter"):
        if (found := shutil.which(tool)) is not None:
            (tmp_path / tool).symlink_to(found)
    environment = {"PATH": str(tmp_path), "PYTHON": sys.executable}
    result = subprocess.run([ROOT / "scripts/deploy-check"], capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "error: no Docker engine answers" in result.stderr
    assert "  buildah: apt-get install buildah" in result.stderr
    assert "  dockerd: apt-get install docker.io" in result.stderr
    assert "--files validates files only" in result.stderr
    assert "Traceback" not in result.stderr
