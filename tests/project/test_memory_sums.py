"""Limits of containers are the sums of what a server's memory is made of, with the settings that they give it."""

import os
import re
from typing import Any

import pytest
import yaml
from maskwire_core.config import MIB, DecoderSettings, EncoderSettings, GatewaySettings, Settings, TrackerSettings
from maskwire_core.runtime.memory_sum import stated_sum, terms_of

from testing.paths import ROOT

KINDS: dict[str, type[Settings]] = {
    "encoder": EncoderSettings,
    "decoder": DecoderSettings,
    "tracker": TrackerSettings,
    "gateway": GatewaySettings,
}
HEADROOM = 256 * MIB
"""Between the sum, at which a server may recycle itself, and the limit, at which it is killed."""


def settings_of(service: str, environment: dict[str, str]) -> Settings:
    known = {
        name.removeprefix("MASKWIRE_").lower(): default(str(value))
        for name, value in environment.items()
        if value is not None
    }
    kind = KINDS[service]
    return kind(**{name: value for name, value in known.items() if name in kind.model_fields and value})


def default(value: str) -> str:
    """What compose puts in place of ${NAME:-default}."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", value)


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|m|g)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"M": 20, "m": 20, "G": 30, "g": 30}[unit[0]]


def of_compose(service: str) -> tuple[dict[str, str], int]:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][service]
    return found["environment"], size(default(found["mem_limit"]))


def of_kubernetes(service: str) -> tuple[dict[str, str], int]:
    deployment: dict[str, Any] = next(yaml.safe_load_all((ROOT / f"deploy/kubernetes/base/{service}.yaml").read_text()))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    return environment, size(container["resources"]["limits"]["memory"])


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MASKWIRE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("read", [of_compose, of_kubernetes])
@pytest.mark.parametrize("service", KINDS)
def test_limits_are_the_stated_sums(service: str, read: Any) -> None:
    environment, limit = read(service)
    settings = settings_of(service, environment)
    assert limit == stated_sum(settings) + HEADROOM, (stated_sum(settings) + HEADROOM) >> 20
    if service == "decoder":
        assert isinstance(settings, DecoderSettings)
        assert settings.workers, "the number of cores would decide about the memory"
        assert settings.recycle_mib == stated_sum(settings) // MIB


@pytest.mark.parametrize("path", ["docker-compose.yml", "deploy/kubernetes/base/encoder.yaml"])
def test_what_is_commented_out_names_its_limit(path: str) -> None:
    text = (ROOT / path).read_text()
    found = re.findall(r'# (?:- { name: )?(MASKWIRE_\w+)(?:: |, value: )"(\d+)"', text)
    assert {name for name, _ in found} == {"MASKWIRE_KEEP_SOURCES_S", "MASKWIRE_PICTURE_CACHE_BYTES"}
    (limit,) = re.findall(r"# .*on top of .*?(\d+m|\d+Mi)\.", text)
    assert size(limit) == stated_sum(settings_of("encoder", dict(found))) + HEADROOM


def test_encoders_on_gpus_have_room_for_their_model() -> None:
    """4 GiB beside the sum: the weights, and what CUDA keeps in main memory."""
    (patch,) = yaml.safe_load_all((ROOT / "deploy/kubernetes/overlays/gpu/encoder.yaml").read_text())
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert size(container["resources"]["limits"]["memory"]) >= stated_sum(settings_of("encoder", environment)) + (
        4 << 30
    )
    environment, limit = of_compose("encoder-gpu")
    assert limit >= stated_sum(settings_of("encoder", environment)) + (4 << 30)


@pytest.mark.parametrize("service", KINDS)
def test_terms_name_their_settings(service: str) -> None:
    kind = KINDS[service]
    for term in terms_of(kind()):
        assert term.nbytes > 0
        for name in re.findall(r"`(\w+)`", term.what):
            assert name in kind.model_fields


def test_pictures_that_are_kept_decoded_count() -> None:
    keeping = EncoderSettings(keep_sources_s=60, picture_cache_bytes=1024 * MIB)
    assert stated_sum(keeping) == stated_sum(EncoderSettings()) + 1024 * MIB
    assert "`picture_cache_bytes`" in " ".join(term.what for term in terms_of(keeping))


def test_a_raised_setting_raises_the_sum() -> None:
    assert stated_sum(DecoderSettings(cache_bytes=2048 * MIB)) == stated_sum(DecoderSettings()) + 1024 * MIB
