"""Runs the function for CVAT's agents in cvat-cli's own agent code: python cvat_agent_run.py IMAGE < requests.json

Everything is cvat-cli's, worker process, cache and all, but the picture, which CVAT's server would send. Requests are
those of CVAT's queue. Prints the specification that CVAT gets, and for each request its shapes or its error.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

import PIL.Image
from cvat_cli._internal.agent import RecoverableExecutor, _worker_init, _worker_job_get_function_spec
from cvat_cli._internal.agent_driver_interaction import AgentInteractionFunctionDriver
from cvat_cli._internal.common import FunctionLoader
from cvat_sdk.masks import decode_mask


class Driver(AgentInteractionFunctionDriver):
    """The driver, with a frame from a file."""

    def _get_sample_from_ar_params(self, ar_params: dict[str, Any]) -> tuple[Any, None]:
        image = PIL.Image.open(sys.argv[1])
        return SimpleNamespace(media=SimpleNamespace(load_image=lambda: image)), None


def main() -> None:
    """Answers the requests."""
    loader = FunctionLoader("maskwire_adapters.cvat_agent", None, {})
    with RecoverableExecutor(initializer=_worker_init, initargs=[loader, str]) as executor:
        spec = executor.result(executor.submit(_worker_job_get_function_spec))
        print(json.dumps(Driver.get_remote_function_fields(spec)))
        driver = Driver(None, executor, spec)
        width, height = PIL.Image.open(sys.argv[1]).size
        for request in json.load(sys.stdin):
            try:
                (shape,) = driver.calculate_result_for_ar({"type": "interact", **request}, lambda **_: None)["shapes"]
            except Exception as error:
                print(json.dumps({"error": str(error)}))
                continue
            mask = decode_mask(shape["points"], image_width=width, image_height=height)
            confidence = shape["attributes"][0]["value"]
            print(json.dumps({"type": shape["type"], "mask": mask.astype(int).tolist(), "confidence": confidence}))


if __name__ == "__main__":
    main()
