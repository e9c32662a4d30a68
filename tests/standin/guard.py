"""ComfyUI's Host/Origin guard: a page of another origin must not drive a server on loopback."""

import ipaddress
import socket
from urllib.parse import urlsplit

from aiohttp import web


def is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(address).is_loopback for address in found)


def same_origin(host: str, origin: str) -> bool:
    """Host and port of both, or the names alone when one has no port; the scheme does not count."""
    ours, theirs = urlsplit("//" + host.lower()), urlsplit(origin.lower())
    if not theirs.netloc or not is_loopback(ours.hostname):
        return True
    if ours.port is None or theirs.port is None:
        return ours.hostname == theirs.hostname
    return ours.netloc == theirs.netloc


def guard(fetch_site: bool):
    """The middleware; `fetch_site`: Sec-Fetch-Site is looked at, as in the newer age."""

    @web.middleware
    async def middleware(request: web.Request, handler):
        headers = request.headers
        if request.path.startswith("/standin/"):
            return await handler(request)
        if fetch_site and headers.get("Sec-Fetch-Site") == "cross-site":
            return web.Response(status=403)
        if "Host" in headers and "Origin" in headers:
            if not same_origin(headers["Host"], headers["Origin"]):
                return web.Response(status=403)
        if request.method == "OPTIONS":
            return web.Response()
        return await handler(request)

    return middleware
