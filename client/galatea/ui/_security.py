"""Who may see the page: the browser of this machine's user, or whoever has the token."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

__all__ = ["COOKIE", "HEADERS", "Guard", "is_loopback"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

COOKIE = "galatea_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, so that nobody else gets to it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application in front of another one.

    Without a token only requests that name this machine are let through, so that no foreign site
    can reach the page under a name of its own (DNS rebinding). With one, it has to be in the
    address once, and is a cookie from then on, or a bearer token. Other sites may lead people to a
    page, and no more. Every answer has :data:`HEADERS`.
    """

    def __init__(self, app: App, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """An ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if refused := self._refused(scope, headers):
            await _answer(with_headers, *refused)
        elif fresh := self._comes_with_token(scope):
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(with_headers, 303, "", location=fresh, set_cookie=cookie)
        else:
            await self._app(scope, receive, with_headers)

    def _refused(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        site = headers.get("sec-fetch-site", "none")
        led = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not led:
            return 403, "another site may not use this page"
        origin = headers.get("origin")
        if scope["method"] == "POST" and origin and origin.split("//")[-1] != headers.get("host"):
            return 403, "another site may not use this page"
        if self._token is None:
            name = headers.get("host", "").rpartition(":")
            host = name[0] if name[2].isdecimal() and name[0] else headers.get("host", "")
            if not is_loopback(host):
                return 421, f"this page is for this machine alone and not for {host or 'nobody'!r}"
            return None
        if self._comes_with_token(scope) or self._knows(headers):
            return None
        return 401, "open the address that galatea ui has printed, with its token"

    def _knows(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given):
            return True
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and self._is_token(morsel.value)

    def _comes_with_token(self, scope: Message) -> str | None:
        """The address without the token, where it has the right one."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] != "GET" or not any(
            key == "token" and self._is_token(value) for key, value in pairs
        ):
            return None
        query = urlencode([pair for pair in pairs if pair[0] != "token"])
        path = "/" + scope.get("raw_path", b"/").decode("latin-1").partition("?")[0].lstrip("/")
        return f"{path}?{query}" if query else path

    def _is_token(self, given: str) -> bool:
        return self._token is not None and secrets.compare_digest(
            given.encode(), self._token.encode()
        )


async def _answer(send: Send, status: int, text: str, **headers: str) -> None:
    named = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
    named |= {key.replace("_", "-"): value for key, value in headers.items()}
    pairs = [(key.encode(), value.encode()) for key, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})
