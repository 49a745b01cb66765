"""What deploy/ and docker-compose.yml open to others: ports, passwords, networks, metrics; which images they run."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from maskwire.cli.free_ports import free_port
from maskwire.cli.local_store import store_program

from testing.paths import ROOT
from testing.processes import running, wait_until

DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes/base"
OVERLAYS = sorted((DEPLOY / "kubernetes/overlays").iterdir())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
ENVOY: dict[str, Any] = yaml.safe_load((BASE / "envoy.yaml").read_text())
PINNED = re.compile(r"[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")
FOR_CLIENTS = {50051, 50052, 50053, 9001}
FOR_PROMETHEUS = {9464, 9902}


def policies() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("kind") == "NetworkPolicy":
                yield document["metadata"]["name"], document["spec"]


def listeners() -> dict[str, dict[str, Any]]:
    """Envoy's listeners by name, each with the settings of its only filter as "http"."""
    found = {}
    for listener in ENVOY["static_resources"]["listeners"]:
        ((chain,),) = ([chain["filters"] for chain in listener["filter_chains"]],)
        found[listener["name"]] = {**listener, "http": chain[0]["typed_config"]}
    return found


# Compose


def test_compose_publishes_to_this_machine_unless_told_otherwise() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert set(published) == {"envoy", "prometheus", "grafana"}
    for ports in published.values():
        for port in ports:
            assert re.match(r"(\$\{MASKWIRE_PUBLISH:-127\.0\.0\.1\}|127\.0\.0\.1):", port), port


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_containers_can_do_no_more_than_they_need(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]  # and the engine's own seccomp profile
    assert service["mem_limit"]
    assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid"}
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))


@pytest.mark.parametrize("path", sorted((DEPLOY / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_images_run_as_a_user_of_their_own(path: Path) -> None:
    users = re.findall(r"^USER (\d+):\d+$", path.read_text(), re.M)
    assert users
    assert "0" not in users


def test_no_password_is_known_beforehand() -> None:
    services = COMPOSE["services"]
    grafana = services["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/var/lib/grafana/")
    assert not grafana.keys() & {"GF_SECURITY_ADMIN_PASSWORD", "GF_AUTH_ANONYMOUS_ENABLED"}
    assert services["redis"]["command"] == ["--passwords"]
    for name in ("encoder", "encoder-gpu", "decoder", "tracker", "admin"):
        environment = services[name]["environment"]
        assert environment["MASKWIRE_REDIS_URL"] == f"redis://maskwire-{name.split('-')[0]}@redis:6379/0"
        assert environment["MASKWIRE_REDIS_PASSWORD_FILE"] == "/secrets/password"
        assert f"{name.split('-')[0]}-secret:/secrets:ro" in services[name]["volumes"]
    with_store = {name for name, service in services.items() if "store" in service.get("networks", ())}
    assert with_store == {"redis", "encoder", "encoder-gpu", "decoder", "tracker", "admin"}
    assert services["redis"]["networks"] == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_the_users_of_the_store_are_the_documented_ones() -> None:
    lines = (DEPLOY / "docker/users.acl").read_text().splitlines()
    page = (ROOT / "docs/how-to/secure.md").read_text().splitlines()
    assert lines[1:] == [line.strip() for line in page if line.strip().startswith("user maskwire-")]
    assert lines[0] == "user default on nopass resetchannels -@all +ping"  # for the health check


def test_the_store_makes_passwords_once(tmp_path: Path) -> None:
    secrets, port = tmp_path / "secrets", free_port()
    for user in ("store", "encoder", "decoder", "tracker", "admin"):
        (secrets / user).mkdir(parents=True)
    etc = tmp_path / "etc"
    shutil.copytree(DEPLOY / "docker", etc)
    config = etc / "valkey.conf"
    config.write_text(config.read_text().replace("dir /data", f"dir {tmp_path}"))
    (tmp_path / "valkey-server").symlink_to(store_program())
    environment = {"STORE_SECRETS": str(secrets), "STORE_CONFIG": str(etc), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    passwords = []
    for _ in range(2):
        command = ["sh", str(DEPLOY / "docker/store-server"), "--passwords", "--port", str(port), "--bind", "127.0.0.1"]
        with running(command, environment) as process:
            stranger = redis.Redis(port=port)
            wait_until(lambda stranger=stranger: answers(stranger), 10, process=process)  # type: ignore[misc]
            with pytest.raises(redis.exceptions.NoPermissionError):
                stranger.get("maskwire:embedding:any")
            passwords.append([(secrets / user / "password").read_text() for user in ("encoder", "decoder", "admin")])
            encoder, decoder, _ = (
                redis.Redis(port=port, username=f"maskwire-{user}", password=password)
                for user, password in zip(("encoder", "decoder", "admin"), passwords[-1], strict=True)
            )
            encoder.set("maskwire:embedding:any", b"tensors")
            assert decoder.get("maskwire:embedding:any") == b"tensors"
            with pytest.raises(redis.exceptions.NoPermissionError):
                decoder.set("maskwire:embedding:any", b"forged")
    assert passwords[0] == passwords[1]
    assert len(set(passwords[0])) == 3
    assert all(len(password) == 48 for password in passwords[0])


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


# Kubernetes


def test_policies_let_in_only_whom_they_name() -> None:
    found = dict(policies())
    assert found["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, spec in found.items():
        for rule in spec.get("ingress", ()):
            ports = {port["port"] for port in rule["ports"]}
            assert rule["from"], name
            for peer in rule["from"]:
                assert all(peer.values()), f"{name}: an empty selector is everybody"
            if ports & FOR_PROMETHEUS:
                assert ports <= FOR_PROMETHEUS
                assert rule["from"] == [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
                        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
                    }
                ]
            elif name != "envoy":
                (peer,) = rule["from"]
                (label,) = peer["podSelector"].get("matchLabels", {"": None}).values()
                allowed = {name: {"envoy"} for name in ("encoder", "decoder", "tracker", "gateway")} | {"redis": {None}}
                assert label in allowed[name]
    (redis_rule,) = found["redis"]["ingress"]
    (expression,) = redis_rule["from"][0]["podSelector"]["matchExpressions"]
    assert expression["values"] == ["encoder", "decoder", "tracker"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_overlays_ask_for_tokens_or_say_that_they_do_not(overlay: Path) -> None:
    text = (overlay / "kustomization.yaml").read_text()
    (below,) = re.findall(r"resources: \[\.\./(?:\.\./)?(\w+)", text)
    asks = [patch for patch in yaml.safe_load(text).get("patches", ()) if patch.get("path") == "tokens.yaml"]
    if asks:
        assert asks[0]["target"] == {"kind": "Deployment", "name": "(encoder|decoder|tracker)"}
        assert "create secret generic maskwire-tokens" in text
    else:
        assert below == "gpu" or "NO TOKENS" in text


# Envoy


def test_envoy_shows_its_admin_interface_to_its_own_host_only() -> None:
    assert ENVOY["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    routes = listeners()["metrics"]["http"]["route_config"]["virtual_hosts"][0]["routes"]
    assert {route["match"]["path"] for route in routes} == {"/alive", "/ready", "/stats/prometheus"}
    for name, listener in listeners().items():
        if name != "metrics":
            routes = listener["http"]["route_config"]["virtual_hosts"][0]["routes"]
            assert "admin" not in {route["route"]["cluster"] for route in routes}


def test_envoy_says_who_called_and_callers_do_not() -> None:
    assert listeners()["gateway"]["http"]["use_remote_address"] is True


@pytest.mark.parametrize("name", listeners())
def test_envoy_waits_for_nobody_forever(name: str) -> None:
    listener = listeners()[name]
    assert listener["per_connection_buffer_limit_bytes"] <= 1 << 20
    http = listener["http"]
    for timeout in (http["request_headers_timeout"], http["stream_idle_timeout"]):
        assert int(timeout.removesuffix("s")) > 0
    assert http["common_http_protocol_options"]["idle_timeout"] != "0s"
    monitors = {monitor["name"]: monitor["typed_config"] for monitor in ENVOY["overload_manager"]["resource_monitors"]}
    limits = monitors["envoy.resource_monitors.global_downstream_max_connections"]
    assert 0 < limits["max_active_downstream_connections"] <= 10_000


def test_envoy_refuses_before_its_memory_is_full() -> None:
    (heap,) = (
        monitor["typed_config"]["max_heap_size_bytes"]
        for monitor in ENVOY["overload_manager"]["resource_monitors"]
        if monitor["name"].endswith("fixed_heap")
    )
    assert COMPOSE["services"]["envoy"]["mem_limit"] == "512m"
    deployment = next(yaml.safe_load_all((BASE / "envoy-deployment.yaml").read_text()))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "512Mi"
    assert heap == 512 * (1 << 20) * 3 // 4


# Images


def named_images() -> Iterator[str]:
    """Images of others, as files name them."""
    for path in (DEPLOY / "docker").glob("*.Dockerfile"):
        yield from re.findall(r"^ARG \w+_IMAGE=(\S+)$", path.read_text(), re.M)
    texts = [ROOT / "docker-compose.yml", *(DEPLOY / "kubernetes").rglob("*.yaml")]
    for path in texts:
        for image in re.findall(r"^ +image: (\S+)$", path.read_text(), re.M):
            if not image.startswith("maskwire/"):
                yield re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", image)


def test_images_of_others_are_named_by_digest() -> None:
    names = set(named_images())
    assert len(names) >= 5
    assert all(PINNED.fullmatch(name) for name in names), names
    assert len({name.partition("@")[0] for name in names}) == len(names), "one tag with two digests"


def test_digests_are_compared_with_those_of_the_tags(tmp_path: Path) -> None:
    """scripts/images asks a registry, which here is a file."""
    (tmp_path / "crane").write_text('#!/bin/sh\nsed -n "s|^$2@||p" "$(dirname "$0")/registry"\n')
    (tmp_path / "crane").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def check(images: list[str]) -> subprocess.CompletedProcess[str]:
        (tmp_path / "registry").write_text("\n".join(images) + "\n")
        command = [str(ROOT / "scripts/images"), "--check"]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    images = sorted(set(named_images()))
    current = check(images)
    assert (current.returncode, current.stderr) == (0, "")
    newer = check([f"{images[0].partition('@')[0]}@sha256:{'0' * 64}", *images[1:]])
    assert newer.returncode == 1
    assert f"{images[0].partition('@')[0]} is now sha256:000" in newer.stdout
    assert "the registry's digest" in check([]).stderr
