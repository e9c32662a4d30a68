"""The HTTP misbehaviours: a middleware around everything but /standin itself.

Answers that no HTTP library would make are written to the connection by hand, which is then closed.
"""

import asyncio
import json
import random

from aiohttp import web

from misbehave import Misbehaviour, Rule

TROUBLE = "500 Internal Server Error\n\nServer got itself in trouble"
FOREVER = 86400


def bare(path: str) -> str:
    return (
        path.removeprefix("/api")
        if path.startswith("/api/") and not path.startswith("/api/jobs")
        else path
    )


async def whole(
    request: web.Request, answer: web.StreamResponse
) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body that would have been sent, files included (with one range, if asked for)."""
    if isinstance(answer, web.FileResponse):
        body = answer._path.read_bytes()
        wanted = request.http_range
        if wanted.start is not None or wanted.stop is not None:
            answer.set_status(206)
            start = wanted.indices(len(body))
            answer.headers["Content-Range"] = f"bytes {start[0]}-{start[1] - 1}/{len(body)}"
            body = body[wanted]
    else:
        body = answer.body or b""
    return [
        (name, value) for name, value in answer.headers.items() if name != "Content-Length"
    ], bytes(body)


async def by_hand(
    request: web.Request, answer: web.StreamResponse, headers, body: bytes, length: int
):
    head = [
        f"HTTP/1.1 {answer.status} {answer.reason}",
        *(f"{n}: {v}" for n, v in headers),
        f"Content-Length: {length}",
        "",
        "",
    ]
    transport = request.transport
    transport.write("\r\n".join(head).encode() + body)
    while transport.get_write_buffer_size() > 0 and not transport.is_closing():
        await asyncio.sleep(0.005)
    return close(request)


def close(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def said(rule: Rule) -> web.Response:
    status, body = rule.get("status", 500), rule.get("body", None)
    if body is None:
        return web.Response(status=status, text=TROUBLE if status == 500 else "")
    if isinstance(body, str):
        answer = web.Response(status=status, text=body, headers=rule.get("headers", None))
        if rule.get("chunked", False):
            answer.enable_chunked_encoding()
        return answer
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/json",
        headers=rule.get("headers", None),
    )


class BadHttp:
    def __init__(self, misbehaviour: Misbehaviour, journal):
        self.misbehaviour, self.journal = misbehaviour, journal

    @web.middleware
    async def middleware(self, request: web.Request, handler):
        if request.path.startswith("/standin/"):
            return await handler(request)
        self._count(request)
        later = []
        facts = {
            "method": request.method,
            "path": bare(request.path),
            "ranged": "Range" in request.headers,
        }
        for rule in await self.misbehaviour.act_async("http", **facts):
            if rule.do == "answer":
                return said(rule)
            if rule.do == "close":
                return close(request)
            if rule.do == "hang":
                await asyncio.sleep(FOREVER)
            if rule.do == "flood":
                return await self._flood(request, rule)
            later.append(rule)
        if not later:
            return await handler(request)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = error
        for rule in later:
            answer = await self._twist(request, answer, rule)
        return answer

    def _count(self, request: web.Request) -> None:
        route = request.match_info.route.resource
        path = request.path if route is None or "{tail" in route.canonical else route.canonical
        parts = ["*" if part.startswith("{") else part for part in bare(path).split("/")]
        self.journal.request(request.method, "/".join(parts))
        if "Range" in request.headers:
            self.journal.request("part of", "/".join(parts))

    async def _twist(self, request: web.Request, answer: web.StreamResponse, rule: Rule):
        if rule.do == "finish" or rule.get("finish", False):
            await self._finish(answer)
        if rule.do == "finish":
            return answer
        if rule.do == "do_then_answer":
            return said(rule)
        if rule.do == "do_then_close":
            return close(request)
        if rule.do == "do_then_hang":
            await asyncio.sleep(FOREVER)
        headers, body = await whole(request, answer)
        if rule.do == "truncate":
            kept = body[: rule.get("bytes", len(body) // 2)]
            return await by_hand(request, answer, headers, kept, len(body))
        if rule.do == "wrong_length":
            return await by_hand(
                request, answer, headers, body, max(len(body) + rule.get("by", -1), 0)
            )
        if rule.do == "garble":
            dice = random.Random(len(body))
            return web.Response(
                status=answer.status, headers=headers, body=dice.randbytes(len(body))
            )
        return await self._streamed(request, answer, headers, body, rule)

    async def _finish(self, answer: web.StreamResponse) -> None:
        try:
            prompt_id = json.loads(answer.text)["prompt_id"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return
        while prompt_id not in self.journal.ended:
            await asyncio.sleep(0.005)

    async def _streamed(
        self, request, answer, headers, body: bytes, rule: Rule
    ) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status, headers=headers)
        piece, pause = len(body) or 1, 0.0
        if rule.do == "chunked":
            stream.enable_chunked_encoding()
            body = body[: rule.get("bytes", len(body))]
        else:
            stream.content_length = len(body)
            rate = rule.get("bytes_per_s", 1000)
            piece = max(1, rate // 20)
            pause = piece / rate
        await stream.prepare(request)
        for start in range(0, len(body), piece):
            await stream.write(body[start : start + piece])
            await asyncio.sleep(pause)
        await stream.write_eof()
        return stream

    async def _flood(self, request: web.Request, rule: Rule) -> web.StreamResponse:
        size = rule.get("bytes", 1 << 20)
        stream = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        stream.content_length = size
        await stream.prepare(request)
        await stream.write(b'"')
        left = size - 2
        while left > 0:
            await stream.write(b"x" * min(left, 1 << 16))
            left -= 1 << 16
        await stream.write(b'"')
        await stream.write_eof()
        return stream
