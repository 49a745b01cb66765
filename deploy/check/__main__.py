"""python -m deploy.check; see scripts/deploy-check."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.check import engine
from deploy.check.custom import Definitions
from deploy.check.engine import Engine, call

ROOT = Path(__file__).parents[2]
_IMAGES = ("redis", "envoy", "decoder", "gateway", "encoder:cpu")
_MAX_DECODER_BYTES = 350_000_000  # compressed, as registries have it
_UP = ("redis", "encoder", "decoder", "envoy", "gateway", "prometheus")


def files(crds: Path | None) -> None:
    """Validates everything that no engine is needed for."""
    definitions = Definitions(crds) if crds else None
    if definitions is None:
        print("--  without --crds, what KEDA, Prometheus and a gateway read was checked by tests only")
    observe = ROOT / "deploy/observe"
    call(sys.executable, "-m", "pytest", "-q", "tests/project/test_deploy.py")
    if _has("promtool"):
        call("promtool", "check", "rules", str(observe / "alerts.yaml"))
        call("promtool", "check", "config", "--syntax-only", str(observe / "prometheus.yaml"))
    if _has("envoy"):
        call("envoy", "--mode", "validate", "-c", str(ROOT / "deploy/kubernetes/base/envoy.yaml"))
    if _has("hadolint"):
        call(
            "hadolint",
            "--ignore",
            "DL3006",
            "--ignore",
            "DL3042",
            *map(str, (ROOT / "deploy/docker").glob("*.Dockerfile")),
        )
    if _has("kubectl") and _has("kubernetes-validate"):
        with tempfile.TemporaryDirectory() as folder:
            kubernetes = ROOT / "deploy/kubernetes"
            for overlay in sorted([*(kubernetes / "overlays").iterdir(), *(kubernetes / "jobs").iterdir()]):
                made = Path(folder) / f"{overlay.name}.yaml"
                made.write_text(call("kubectl", "kustomize", str(overlay)))
                call("kubernetes-validate", "--strict", str(made))
                print(f"ok  {overlay.name}: {made.read_text().count('kind:')} manifests")
                if definitions is not None:
                    wrong, known = definitions.check(made.read_text())
                    if wrong:
                        raise SystemExit("error: " + "\n".join(wrong))
                    print(f"ok  {overlay.name}: {', '.join(sorted(known)) or 'nothing'} by their definitions")


def _has(tool: str) -> bool:
    if shutil.which(tool) is None:
        print(f"--  {tool} is not on PATH: what it checks was not checked")
        return False
    return True


def containers(found: Engine, picture: Path | None) -> None:
    """Starts the compose file and tries it."""
    for image in _IMAGES:
        size = int(found.docker("image", "inspect", "--format", "{{.Size}}", f"maskwire/{image}"))
        print(f"ok  image {image}: {size / 1e6:.0f} MB unpacked", flush=True)
    pulled = int(call("bash", "-c", "docker save maskwire/decoder | gzip -1 | wc -c", **found.environment))
    print(f"ok  image decoder: {pulled / 1e6:.0f} MB to pull")
    assert pulled < _MAX_DECODER_BYTES, "the decoder's image is too large"
    try:
        found.compose("--profile", "observe", "up", "--detach", "--no-build", "--wait", *_UP)
        command = [
            *found.inside,
            sys.executable,
            "-m",
            "deploy.check.probes",
            found.host,
            *([str(picture)] if picture else []),
        ]
        code = subprocess.run(command, cwd=ROOT).returncode
        if code:
            raise SystemExit(f"error: a probe failed (exit code {code}); it is named above")
    except BaseException:
        print(found.compose("logs", "--tail", "15", check=False)[-8000:], file=sys.stderr)
        raise
    finally:
        found.compose("--profile", "observe", "down", "--volumes", "--timeout", "40", check=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/deploy-check")
    parser.add_argument("--folder", type=Path, help="Where a private engine keeps its data (several GB); else /tmp.")
    parser.add_argument("--files", action="store_true", help="Validate files only.")
    parser.add_argument(
        "--crds",
        type=Path,
        help="Folder with the CustomResourceDefinitions (YAML) of KEDA, the Prometheus operator and the Gateway API, as"
        " in their releases; their resources are validated strictly.",
    )
    parser.add_argument("--built", action="store_true", help="Take the images as they are.")
    parser.add_argument("--picture", type=Path, help="Draw the dashboard under load into this PNG file.")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    if not arguments.files:
        engine.require()
    files(arguments.crds)
    if arguments.files:
        return
    machine = engine.of_the_machine()
    if machine is not None:
        if not arguments.built:
            machine.compose("build")
        containers(machine, arguments.picture)
        return
    if not arguments.built and (code := subprocess.run(["deploy/check/build.sh"]).returncode):
        sys.exit(f"error: the images were not built: deploy/check/build.sh gave {code}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        names = [f"docker.io/maskwire/{image}" for image in _IMAGES] + [f"docker.io/{engine.PROMETHEUS}"]
        with engine.private(Path(folder), names) as found:
            containers(found, arguments.picture)
    print("all promises kept")


if __name__ == "__main__":
    main()
