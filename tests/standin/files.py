"""/view and /upload: how names become paths, and with which headers files are sent."""

import asyncio
import io
import json
import mimetypes
import os
from pathlib import Path

from aiohttp import web
from PIL import Image

from misbehave import Misbehaviour
from nodes import Site

for _suffix, _kind in {
    ".webp": "image/webp",
    ".glb": "model/gltf-binary",
    ".webm": "video/webm",
    ".mp4": "video/mp4",
    ".svg": "image/svg+xml",
    ".wav": "audio/x-wav",
}.items():
    mimetypes.add_type(_kind, _suffix)

ACTIVE = {
    "text/html",
    "text/css",
    "text/javascript",
    "application/javascript",
    "image/svg+xml",
    "text/xml",
    "application/xml",
    "application/xhtml+xml",
}


class Files:
    def __init__(self, site: Site, misbehaviour: Misbehaviour, journal):
        self.site, self.misbehaviour, self.journal = site, misbehaviour, journal

    # /view

    async def view(self, request: web.Request) -> web.StreamResponse:
        found = self._find(request.rel_url.query)
        if isinstance(found, int):
            return web.Response(status=found)
        seen = self.journal.view(
            found.name,
            request.rel_url.query.get("subfolder", ""),
            request.rel_url.query.get("type", "output"),
        )
        answer = self._recoded(request, found)
        if answer is None:
            answer = web.FileResponse(found, headers=self._headers(found))
            seen["bytes_sent"] = found.stat().st_size
            is_whole = request.method == "GET" and "Range" not in request.headers
            if is_whole and self.misbehaviour.expects("view"):
                return await self._in_halves(request, found)
        return answer

    def _find(self, query) -> Path | int:
        if "filename" not in query:
            return 404
        name, kind = query["filename"], query.get("type", "output")
        for suffix in ("output", "input", "temp"):
            if name.endswith(f"[{suffix}]"):
                name, kind = name[: -len(suffix) - 3], suffix
        if not name and self.site.age.strict_view:
            return 400
        if name[0] == "/" or ".." in name:  # an empty name raises here, as in the older age
            return 400
        folder = self.site.folder(kind)
        if folder is None:
            return 400
        target = Path(os.path.abspath(folder / query.get("subfolder", "")))
        if not target.is_relative_to(folder):
            return 403
        path = target / os.path.basename(name)
        return path if path.is_file() else 404

    def _headers(self, path: Path) -> dict:
        if not self.site.age.strict_view:
            return {"Content-Disposition": f'filename="{path.name}"'}
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        name = path.name.replace("\\", "\\\\").replace('"', '\\"')
        headers = {"X-Content-Type-Options": "nosniff"}
        if kind in ACTIVE:
            headers |= {
                "Vary": "Sec-Fetch-Dest",
                "Cache-Control": "no-store",
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Type": "application/octet-stream",
            }
        else:
            headers |= {"Content-Disposition": f'filename="{name}"', "Content-Type": kind}
        return headers

    def _recoded(self, request: web.Request, path: Path) -> web.Response | None:
        query = request.rel_url.query
        if "preview" in query:
            kind, _, quality = query["preview"].partition(";")
            kind = kind if kind in ("webp", "jpeg") else "webp"
            image = Image.open(path)
            if kind == "jpeg":
                image = image.convert("RGB")
            return self._encoded(
                path, image, kind, quality=int(quality) if quality.isdigit() else 90
            )
        channel = query.get("channel", "rgba")
        if channel == "rgb":
            return self._encoded(path, Image.open(path).convert("RGB"), "png")
        if channel == "a":
            image = Image.open(path).convert("RGBA")
            alpha = Image.new("RGBA", image.size)
            alpha.putalpha(image.getchannel("A"))
            return self._encoded(path, alpha, "png")
        return None

    @staticmethod
    def _encoded(path: Path, image: Image.Image, kind: str, **options) -> web.Response:
        out = io.BytesIO()
        image.save(out, kind, **options)
        return web.Response(
            body=out.getvalue(),
            content_type=f"image/{kind}",
            headers={"Content-Disposition": f'filename="{path.name}"'},
        )

    async def _in_halves(self, request: web.Request, path: Path) -> web.StreamResponse:
        content = path.read_bytes()
        answer = web.StreamResponse(headers=self._headers(path))
        if "Content-Type" not in answer.headers:
            answer.content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        answer.content_length = len(content)
        await answer.prepare(request)
        await answer.write(content[: len(content) // 2])
        await asyncio.sleep(0.05)  # lets the first half leave before the process may die
        await self.misbehaviour.act_async("view")
        await answer.write(content[len(content) // 2 :])
        await answer.write_eof()
        return answer

    # /upload

    async def upload_image(self, request: web.Request) -> web.Response:
        return self._store(await request.post(), None)

    async def upload_mask(self, request: web.Request) -> web.Response:
        post = await request.post()
        return self._store(post, json.loads(post.get("original_ref")))

    def _store(self, post, masked: dict | None) -> web.Response:
        """What ComfyUI answers with 500 raises here too."""
        image, kind = post.get("image"), post.get("type") or "input"
        if not (image and image.file):
            return web.Response(status=400)
        folder, subfolder = self.site.folder(kind), post.get("subfolder", "")
        target = Path(os.path.abspath(os.path.join(folder, os.path.normpath(subfolder))))
        if os.path.isabs(image.filename):
            raise PermissionError(image.filename)
        named = Path(os.path.abspath(target / image.filename))
        if not target.is_relative_to(folder) or not named.is_relative_to(folder):
            return web.Response(status=400)
        target.mkdir(parents=True, exist_ok=True)
        content = image.file.read()
        overwrite = post.get("overwrite") in ("true", "1")
        path = self._place(target, image.filename, content, overwrite or masked is not None)
        if masked is None:
            path.write_bytes(content)
        else:
            self._paint_mask(masked, content, path)
        self.journal.upload(path.name, subfolder, kind, content)
        return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})

    @staticmethod
    def _place(target: Path, name: str, content: bytes, overwrite: bool) -> Path:
        """A name taken by other bytes gets a number; by the same bytes, it is used again."""
        path, number = target / name, 0
        stem, suffix = os.path.splitext(name)
        while not overwrite and path.exists() and path.read_bytes() != content:
            number += 1
            path = target / f"{stem} ({number}){suffix}"
        return path

    def _paint_mask(self, ref: dict, content: bytes, path: Path) -> None:
        original = Path(
            os.path.normpath(
                self.site.folder(ref.get("type", "output"))
                / ref.get("subfolder", "")
                / ref["filename"]
            )
        )
        if not original.is_relative_to(self.site.folder(ref.get("type", "output"))):
            raise PermissionError(str(original))
        picture = Image.open(original).convert("RGBA")
        alpha = Image.open(io.BytesIO(content)).convert("RGBA").resize(picture.size).getchannel("A")
        picture.putalpha(alpha)
        picture.save(path, "PNG", compress_level=4)
