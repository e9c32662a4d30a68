"""The base of all nodes.

A class says what it takes and gives in ComfyUI's own terms, since /object_info and the validation
repeat them word for word. `run` gets a Run (progress.py) and its inputs, and returns a Result.
Importing a module of nodes registers its classes in CLASSES.
"""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import PngImagePlugin

from ages import Age
from pictures import Images

CLASSES: dict[str, type["Node"]] = {}


@dataclass
class Site:
    """Where this ComfyUI lives and what it was told; the same for all nodes."""

    age: Age
    input_dir: Path
    output_dir: Path
    temp_dir: Path
    step_seconds: float = 0.04
    live_previews: bool = False

    def folder(self, kind: str) -> Path | None:
        return {"input": self.input_dir, "output": self.output_dir, "temp": self.temp_dir}.get(kind)


@dataclass
class Result:
    values: tuple = ()
    ui: dict | None = None
    expand: dict | None = None  # a graph with local ids; values may then be links into it


class Blocker:
    """Stands for a value and stops every node that would take it."""

    def __init__(self, message: str | None):
        self.message = message


class Node:
    output_node = False
    category = "image"
    description = ""
    display_name: str | None = None
    module = "nodes"
    gives: tuple[str, ...] = ()
    gives_since_new: tuple[str, ...] | None = None  # where the newer age gives something else
    checked: tuple[str, ...] = ()  # inputs that check() judges instead of the declared limits
    aliases: list[str] | None = None
    essentials: str | None = None

    def __init_subclass__(cls):
        CLASSES[cls.__name__] = cls

    @classmethod
    def inputs(cls, site: Site) -> dict[str, dict]:
        return {"required": {}}

    @classmethod
    def returns(cls, age: Age) -> tuple[str, ...]:
        if age.uniform_errors and cls.gives_since_new is not None:
            return cls.gives_since_new
        return cls.gives

    @classmethod
    def check(cls, site: Site, name: str, value) -> bool | str:
        return True

    @classmethod
    def fingerprint(cls, site: Site, inputs: dict):
        """Part of the cache key beside class and inputs; not equal to itself means: always run."""
        return None

    def run(self, run, **inputs) -> Result:
        raise NotImplementedError


def input_lists(cls: type[Node], site: Site) -> list[tuple[str, list, bool]]:
    declared = cls.inputs(site)
    return [
        (name, list(config), group == "required")
        for group in ("required", "optional")
        for name, config in declared.get(group, {}).items()
    ]


def describe(cls: type[Node], site: Site) -> dict:
    """The class's entry in /object_info."""
    declared, gives = cls.inputs(site), list(cls.returns(site.age))
    names = ["images" if cls.gives_since_new else kind for kind in gives]
    new = site.age.uniform_errors
    info = {
        "input": declared,
        "input_order": {group: list(each) for group, each in declared.items()},
    }
    if new:
        info["is_input_list"] = False
    info |= {
        "output": gives,
        "output_is_list": [False] * len(gives),
        "output_name": names,
        "name": cls.__name__,
        "display_name": cls.display_name or cls.__name__,
        "description": cls.description,
        "python_module": cls.module,
        "category": cls.category,
        "output_node": cls.output_node,
    }
    if new:
        info["has_intermediate_output"] = False
        info["search_aliases"] = cls.aliases or []
        if cls.essentials:
            info["essentials_category"] = cls.essentials
    return info


def list_files(folder: Path, images_only: bool) -> list[str]:
    names = (
        sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        if folder.is_dir()
        else []
    )
    if images_only:
        names = [
            name
            for name in names
            if Path(name).suffix.lower()
            in (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
        ]
    return names


def find_input(site: Site, name: str) -> Path:
    """An input file by its name in a graph, which may end in [output], [input] or [temp]."""
    match = re.fullmatch(r"(.*) \[(output|input|temp)\]", name)
    folder, name = (site.folder(match[2]), match[1]) if match else (site.input_dir, name)
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(folder):
        raise ValueError(f"{name} is outside its folder")
    return path


def save_path(
    folder: Path, prefix: str, width: int = 0, height: int = 0
) -> tuple[Path, str, str, int]:
    """Where files of that prefix go: directory, base name, subfolder, and the next free number."""
    now = time.localtime()
    for name, value in (
        ("width", width),
        ("height", height),
        ("year", now.tm_year),
        ("month", f"{now.tm_mon:02}"),
        ("day", f"{now.tm_mday:02}"),
        ("hour", f"{now.tm_hour:02}"),
        ("minute", f"{now.tm_min:02}"),
        ("second", f"{now.tm_sec:02}"),
    ):
        prefix = prefix.replace(f"%{name}%", str(value))
    subfolder, base = os.path.split(os.path.normpath(prefix))
    target = Path(os.path.abspath(folder / subfolder))
    if not target.is_relative_to(folder):
        raise Exception("**** ERROR: Saving image outside the output folder is not allowed.")
    target.mkdir(parents=True, exist_ok=True)
    taken = re.compile(re.escape(base) + r"_(\d+)_")
    numbers = [int(match[1]) for entry in os.scandir(target) if (match := taken.match(entry.name))]
    return target, base, subfolder, max(numbers, default=0) + 1


def save_images(
    run, images: Images, folder: Path, kind: str, prefix: str, level: int
) -> list[dict]:
    target, base, subfolder, number = save_path(folder, prefix, images[0].width, images[0].height)
    saved = []
    for offset, image in enumerate(images):
        facts = PngImagePlugin.PngInfo()
        facts.add_text("prompt", json.dumps(run.graph))
        for name, value in (run.extra_data.get("extra_pnginfo") or {}).items():
            facts.add_text(name, json.dumps(value))
        name = f"{base}_{number + offset:05}_.png"
        image.save(target / name, pnginfo=facts, compress_level=level)
        saved.append({"filename": name, "subfolder": subfolder, "type": kind})
    return saved
