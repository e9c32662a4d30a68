#!/usr/bin/python3
"""A ComfyUI without PyTorch: flags, boot, end. README.md tells what it can do.

Like ComfyUI it empties its temp directory before it binds the port, logs to stderr, ends at once on
SIGTERM, and on SIGINT says "Stopped server", removes the temp directory and exits with 0.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

from aiohttp import web

import ages
import log
import misbehave
import nodes_lab  # noqa: F401 (importing a module of nodes registers its classes)
import nodes_stock  # noqa: F401
import nodes_trouble  # noqa: F401
from nodes import Site
from server import StandIn

HERE = Path(__file__).resolve().parent
# Flags of ComfyUI that change nothing here. Anything else is an error, as it is there.
INERT = """--cpu --auto-launch --disable-auto-launch --windows-standalone-build --lowvram --novram
    --highvram --normalvram --gpu-only --force-fp32 --force-fp16 --fp16-vae --fp32-vae --bf16-vae
    --cpu-vae
    --dont-upcast-attention --force-upcast-attention --use-split-cross-attention
    --use-quad-cross-attention --use-pytorch-cross-attention --disable-xformers --deterministic
    --disable-smart-memory --disable-metadata --disable-all-custom-nodes --disable-api-nodes
    --multi-user --log-stdout --cache-classic --cache-none --quick-test-for-ci
    --enable-compress-response-body --enable-manager --disable-cuda-malloc
    --cuda-malloc --disable-async-offload""".split()
INERT_WITH_OPTIONAL = ["--fast", "--verbose", "--async-offload"]
INERT_WITH_VALUE = """--user-directory --database-url --extra-model-paths-config --cuda-device
    --default-device --reserve-vram --cache-lru --cache-ram --default-hashing-function
    --front-end-version --front-end-root --tls-keyfile --tls-certfile --preview-size
    --whitelist-custom-nodes
    --comfy-api-base""".split()


def flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="main.py", allow_abbrev=False)
    parser.add_argument("--listen", nargs="?", const="0.0.0.0,::", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--base-directory", type=Path, default=HERE)
    for name in ("input", "output", "temp"):
        parser.add_argument(f"--{name}-directory", type=Path)
    parser.add_argument("--max-upload-size", type=float, default=100)
    parser.add_argument("--enable-cors-header", nargs="?", const="*")
    parser.add_argument("--dont-print-server", action="store_true")
    parser.add_argument(
        "--preview-method", default="none", choices=["none", "auto", "latent2rgb", "taesd"]
    )
    parser.add_argument(
        "--age", choices=list(ages.AGES), default=os.environ.get("STANDIN_AGE", "0.33.0")
    )
    parser.add_argument(
        "--standin-control", action="store_true", default=os.environ.get("STANDIN_CONTROL") == "1"
    )
    for name in INERT:
        parser.add_argument(name, action="store_true")
    for name in INERT_WITH_OPTIONAL:
        parser.add_argument(name, nargs="*")
    for name in INERT_WITH_VALUE:
        parser.add_argument(name, nargs="+")
    return parser.parse_args(argv)


def make_site(args: argparse.Namespace) -> Site:
    base = args.base_directory.resolve()
    site = Site(
        age=ages.AGES[args.age],
        input_dir=(args.input_directory or base / "input").resolve(),
        output_dir=(args.output_directory or base / "output").resolve(),
        temp_dir=((args.temp_directory or base) / "temp").resolve(),
        step_seconds=float(os.environ.get("STANDIN_STEP_MS", "40")) / 1000,
        live_previews=args.preview_method != "none",
    )
    shutil.rmtree(site.temp_dir, ignore_errors=True)
    for folder in (site.input_dir, site.output_dir, site.temp_dir):
        folder.mkdir(parents=True, exist_ok=True)
    return site


def boot(site: Site, args: argparse.Namespace, misbehaviour: misbehave.Misbehaviour) -> None:
    """What goes before the port is bound: log, time, trouble."""
    if args.output_directory:
        log.info(f"Setting output directory to: {site.output_dir}")
    if args.input_directory:
        log.info(f"Setting input directory to: {site.input_dir}")
    left = float(os.environ.get("STANDIN_BOOT_MS", "0")) / 1000
    while left > 0:
        log.info("Import times for custom nodes: still counting")
        time.sleep(min(left, 0.5))
        left -= 0.5
    for rule in misbehaviour.act("boot"):
        if rule.do == "never_bind":
            time.sleep(86400)


def addresses(args: argparse.Namespace) -> list[str]:
    return [address.strip() for address in args.listen.split(",")]


async def serve(stand_in: StandIn, args: argparse.Namespace) -> None:
    stand_in.loop = stand_in.hub.loop = asyncio.get_running_loop()
    stand_in.executor.start()
    runner = web.AppRunner(stand_in.app, access_log=None, keepalive_timeout=75)
    await runner.setup()
    log.info("Starting server\n")
    for address in addresses(args):
        listener = web.TCPSite(runner, address, args.port)
        try:
            await listener.start()
        except OSError:
            if not stand_in.age.coloured_log:
                raise
            log.error(
                f"Port {args.port} is already in use on address {address}. Please close the other "
                "application or use a different port with --port."
            )
            leave(1)
        stand_in.sites.append(listener)
        shown = f"[{address}]" if ":" in address else address
        if not args.dont_print_server:
            log.info(f"To see the GUI go to: http://{shown}:{args.port}")
    await stand_in.hub.publish()


def leave(code: int) -> None:
    """Without waiting for the worker, which may sleep in a node."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    args = flags(sys.argv[1:])
    site = make_site(args)
    log.dress(site.age.coloured_log)
    sys.setrecursionlimit(20000)  # the validation goes down long chains
    misbehaviour = misbehave.Misbehaviour()
    stand_in = StandIn(
        site,
        sys.argv,
        round(args.max_upload_size * 1024 * 1024),
        args.enable_cors_header is not None,
        args.standin_control,
        misbehaviour,
    )
    if wanted := os.environ.get("STANDIN_MISBEHAVE"):
        misbehaviour.add(json.loads(wanted))
    try:
        boot(site, args, misbehaviour)
        asyncio.new_event_loop().run_until_complete(serve(stand_in, args))
    except KeyboardInterrupt:
        log.info("\nStopped server")
        shutil.rmtree(site.temp_dir, ignore_errors=True)
        leave(0)
    except Exception:
        # The loop is dead, the port still takes connections for a moment: as seen on real servers.
        traceback.print_exc()
        sys.stderr.flush()
        time.sleep(0.3)
        leave(1)


if __name__ == "__main__":
    main()
