"""The routes that only inform: node classes, the machine, folders, logs, the page."""

import os
import re
from pathlib import Path

from aiohttp import web

import log
from nodes import CLASSES, Site, describe

MODEL_FOLDERS = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
]
MODEL_FOLDERS_OLD = [*MODEL_FOLDERS, "custom_nodes", "hypernetworks", "photomaker", "classifiers"]
MODEL_FOLDERS_NEW = [
    *MODEL_FOLDERS,
    "latent_upscale_models",
    "custom_nodes",
    "datasets",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
    "background_removal",
    "frame_interpolation",
    "geometry_estimation",
    "optical_flow",
    "detection",
]
EXTENSIONS_OLD = [
    f"/extensions/core/{name}.js"
    for name in (
        "groupNode",
        "maskEditorOld",
        "clipspace",
        "colorPalette",
        "widgetInputs",
        "groupNodeManage",
        "vintageClipboard",
    )
]
PAGE = Path(__file__).resolve().parent / "page.html"


class Info:
    def __init__(self, site: Site, argv: list[str], features: dict):
        self.site, self.age, self.argv, self.features = site, site.age, argv, features

    def routes(self) -> list[web.RouteDef]:
        get = web.get
        routes = [
            get("/object_info", self.get_object_info),
            get("/object_info/{name}", self.get_object_info),
            get("/system_stats", self.get_system_stats),
            get("/extensions", self.get_extensions),
            get("/embeddings", fixed([])),
            get("/users", fixed({"storage": "server", "migrated": False})),
            get("/models", self.get_models),
            get("/models/{folder}", self.get_models),
            get("/settings", fixed({})),
            get("/userdata", self.get_userdata),
            get("/internal/logs", self.get_logs),
            get("/internal/folder_paths", self.get_folder_paths),
        ]
        if self.age.async_executor:
            routes += [
                get("/features", fixed(self.features)),
                get("/i18n", fixed({})),
                get("/workflow_templates", fixed({})),
                get("/internal/files/{kind}", self.get_files),
            ]
        return routes

    async def get_object_info(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        names = list(CLASSES) if name is None else [name] if name in CLASSES else []
        if name is None:  # the recorded answers begin with it
            names.sort(key=lambda one: one != "KSampler")
        return web.json_response({one: describe(CLASSES[one], self.site) for one in names})

    async def get_system_stats(self, request: web.Request) -> web.Response:
        total, free = memory()
        system = {
            "os": self.age.system_os,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": self.age.reported_version,
        }
        if self.age.async_executor:
            packages = {
                "comfyui-frontend-package": "1.49.6",
                "comfyui-workflow-templates": "0.11.44",
                "comfyui-embedded-docs": "0.5.10",
                "comfy-kitchen": "0.2.31",
                "comfy-aimdo": "0.4.13",
            }
            system |= {
                "required_frontend_version": "1.49.6",
                "installed_templates_version": None,
                "required_templates_version": "0.11.44",
                "comfy_package_versions": [
                    {"name": name, "installed": None, "required": version}
                    for name, version in packages.items()
                ],
            }
        system |= {
            "python_version": self.age.python_version,
            "pytorch_version": self.age.pytorch_version,
            "embedded_python": False,
        }
        if self.age.async_executor:
            system["deploy_environment"] = "local-git"
        system["argv"] = self.argv
        device = {
            "name": "cpu",
            "type": "cpu",
            "index": None,
            "vram_total": total,
            "vram_free": free,
            "torch_vram_total": total,
            "torch_vram_free": free,
        }
        return web.json_response({"system": system, "devices": [device]})

    async def get_extensions(self, request: web.Request) -> web.Response:
        return web.json_response([] if self.age.async_executor else EXTENSIONS_OLD)

    async def get_models(self, request: web.Request) -> web.Response:
        folders = MODEL_FOLDERS_NEW if self.age.async_executor else MODEL_FOLDERS_OLD
        folder = request.match_info.get("folder")
        if folder is None:
            return web.json_response(folders)
        return web.json_response([]) if folder in folders else web.Response(status=404)

    async def get_userdata(self, request: web.Request) -> web.Response:
        if not request.rel_url.query.get("dir"):
            return web.Response(status=400, text="Directory not provided")
        return web.json_response([])

    async def get_logs(self, request: web.Request) -> web.Response:
        return web.json_response(log.recent())

    async def get_folder_paths(self, request: web.Request) -> web.Response:
        base = self.site.output_dir.parent / "models"
        folders = MODEL_FOLDERS_NEW if self.age.async_executor else MODEL_FOLDERS_OLD
        return web.json_response({name: [str(base / name)] for name in folders})

    async def get_files(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        folder = self.site.folder(kind)
        if folder is None:
            return web.json_response({"error": "Invalid directory type"}, status=400)
        files = sorted(
            (e for e in os.scandir(folder) if e.is_file()), key=lambda e: -e.stat().st_mtime_ns
        )
        return web.json_response([f"{entry.name} [{kind}]" for entry in files])

    async def get_page(self, request: web.Request) -> web.StreamResponse:
        cache = "no-store, must-revalidate" if self.age.async_executor else "no-cache"
        return web.FileResponse(
            PAGE, headers={"Cache-Control": cache, "Pragma": "no-cache", "Expires": "0"}
        )

    async def get_unknown(self, request: web.Request) -> web.StreamResponse:
        if not self.age.anonymous_404:
            raise web.HTTPNotFound()
        answer = web.StreamResponse(status=404)
        answer.enable_chunked_encoding()
        return answer


def fixed(value):
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(value)

    return handler


def memory() -> tuple[int, int]:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = {
        name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", text)
    }
    return found["MemTotal"], found["MemAvailable"]
