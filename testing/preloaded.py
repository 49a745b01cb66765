"""What `warm` imports once for all processes that it starts: what servers and commands import, and they themselves but
for the module `__main__`, which each process runs anew; and the small model of encoders that fail.

By names, because nothing here uses the modules, and a linter takes away imports that nobody uses.
"""

import gc
import os
import pkgutil
from collections.abc import Iterator
from importlib import import_module

_MODULES = (
    "cryptography.x509",
    "cv2",
    "google.rpc.error_details_pb2",
    "grpc_health.v1.health_pb2_grpc",
    "grpc_reflection.v1alpha.reflection",
    "httpx",
    "hydra",
    "onnx",
    "onnxruntime",
    "openvino",
    "PIL.Image",
    "prometheus_client",
    "pycocotools.mask",
    "pydantic_settings",
    "redis.asyncio",
    "rich.console",
    "safetensors.torch",
    "sam2.build_sam",
    "sam2.modeling.sam2_base",
    "sam2.modeling.backbones.image_encoder",
    "starlette.applications",
    "torch",
    "typer",
    "uvicorn",
    "websockets",
)

_PACKAGES = (
    "maskwire",
    *(f"maskwire_{name}" for name in ("core", "encoder", "decoder", "tracker", "gateway", "adapters")),
)
_FOREIGN = "maskwire_adapters.cvat_agent"  # runs where CVAT's SDK is installed


def _own() -> Iterator[str]:
    for package in _PACKAGES:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            if module.name.rpartition(".")[2] != "__main__" and module.name != _FOREIGN:
                yield module.name


for _name in _MODULES:
    import_module(_name)
if "COVERAGE_PROCESS_CONFIG" not in os.environ:  # else the lines that importing them runs are to be counted
    for _name in (*_own(), "testing.small_model"):
        import_module(_name)
gc.freeze()  # what is collected in a process that is forked need not be these, whose pages it would have to copy
