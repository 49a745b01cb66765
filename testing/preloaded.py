"""What `warm` imports once for all processes that it starts: what servers and commands import, and no server itself.

By names, because nothing here uses the modules, and a linter takes away imports that nobody uses.
"""

import gc
from importlib import import_module

MODULES = (
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

for _name in MODULES:
    import_module(_name)
gc.freeze()  # what is collected in a process that is forked need not be these, whose pages it would have to copy
