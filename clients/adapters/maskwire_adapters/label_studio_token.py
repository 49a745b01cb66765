"""Authentication to Label Studio by personal access tokens and legacy tokens."""

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from maskwire_core.http.problems import Problem

_EARLY_S = 20.0  # a bearer token that expires within this time is replaced
_REFUSED = (401, 403)


class LabelStudioToken(httpx.Auth):
    """Authenticates requests to Label Studio.

    A personal access token is only sent to /api/token/refresh, which answers a bearer token that is valid for some
    minutes; it is kept until it is about to expire or refused. A legacy token is sent as it is.

    Args:
        host: URL of Label Studio.
        token: Either kind; a personal access token is a JSON web token.
    """

    def __init__(self, host: httpx.URL, token: str) -> None:
        self._refresh_url = host.join("/api/token/refresh/")
        self._token = token.strip()
        self._bearer = ""
        self._renewing = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sends a request with a token, and once more with another bearer token if Label Studio refuses the first.

        Raises:
            Problem: TOKEN_REFUSED: Label Studio does not accept the personal access token.
        """
        if not _claims(self._token):
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        for _ in range(2):
            async with self._renewing:
                if not self._bearer or _claims(self._bearer).get("exp", math.inf) < time.time() + _EARLY_S:
                    response = yield httpx.Request("POST", self._refresh_url, json={"refresh": self._token})
                    self._bearer = await _access_token(response)
                bearer = self._bearer
            request.headers["Authorization"] = f"Bearer {bearer}"
            response = yield request
            if response.status_code not in _REFUSED:
                return
            if self._bearer == bearer:
                self._bearer = ""


async def _access_token(response: httpx.Response) -> str:
    if response.status_code != 200:
        raise Problem(
            400,
            f"Label Studio does not accept the personal access token ({response.status_code}): create another in "
            "Account & Settings, and start the adapter with it as --api-token or LABEL_STUDIO_API_KEY",
            "TOKEN_REFUSED",
        )
    return str(json.loads(await response.aread())["access"])


def _claims(token: str) -> dict[str, Any]:
    """Reads the claims of a JSON web token without verifying them; empty if it is not one."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
