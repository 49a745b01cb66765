"""Responses of requests that failed."""

from maskwire_core.http.problems import problem_of
from starlette.responses import JSONResponse, Response

from maskwire_gateway.http.doorkeeper import ROBOFLOW


def error_response(error: Exception, path: str) -> Response:
    """Makes the response of a request of a path that failed.

    Clients of Roboflow know 503 and not 429, and show their users the message alone.
    """
    problem = problem_of(error)
    status, content = problem.status, problem.content()
    if path.startswith(ROBOFLOW):
        status = 503 if status == 429 else status
        if status in (400, 422):
            content["message"] = str(problem)
    return JSONResponse(content, status, problem.headers)
