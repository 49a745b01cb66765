"""Authentication to Label Studio by personal access tokens and legacy tokens."""

import asyncio
import base64
import json
import math
import time
from typing import Any

import httpx
from maskwire_core.http.problems import Problem

_EARLY_S = 20.0  # a bearer token that expires within this time is replaced


class LabelStudioToken:
    """Authenticates requests to Label Studio.

    A personal access token is only sent to /api/token/refresh, which answers a bearer token that is valid for some
    minutes; it is kept until it is about to expire. A legacy token is sent as it is.

    Args:
        host: URL of Label Studio.
        token: Either kind; a personal access token is a JSON web token.

    Attributes:
        is_personal: Whether it is a personal access token.
    """

    def __init__(self, host: httpx.URL, token: str) -> None:
        self._refresh_url = host.join("/api/token/refresh/")
        self._token = token.strip()
        self.is_personal = bool(_claims(self._token))
        self._bearer = ""
        self._renewing = asyncio.Lock()

    async def headers(self, http: httpx.AsyncClient) -> dict[str, str]:
        """Returns the headers of an authenticated request.

        Args:
            http: Fetches a bearer token if none is valid.

        Raises:
            Problem: TOKEN_REFUSED: Label Studio does not accept the personal access token.
            httpx.HTTPError: Label Studio does not answer.
        """
        if not self.is_personal:
            return {"Authorization": f"Token {self._token}"}
        async with self._renewing:
            if not self._bearer or _claims(self._bearer).get("exp", math.inf) < time.time() + _EARLY_S:
                self._bearer = await self._renew(http)
        return {"Authorization": f"Bearer {self._bearer}"}

    def forget_bearer(self) -> None:
        """Drops the bearer token, because Label Studio refuses it; the next request fetches another."""
        self._bearer = ""

    async def _renew(self, http: httpx.AsyncClient) -> str:
        response = await http.post(self._refresh_url, json={"refresh": self._token})
        if response.status_code != 200:
            raise Problem(
                400,
                f"Label Studio does not accept the personal access token ({response.status_code}): create another in "
                "Account & Settings, and start the adapter with it as --api-token or LABEL_STUDIO_API_KEY",
                "TOKEN_REFUSED",
            )
        return str(response.json()["access"])


def _claims(token: str) -> dict[str, Any]:
    """Reads the claims of a JSON web token without verifying them; empty if it is not one."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
