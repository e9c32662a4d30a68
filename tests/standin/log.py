"""The log on stderr, in the two ages' dress, and the last lines of it for /internal/logs.

ComfyUI writes everything to stderr; the newer age colours each line and tags it with its level even
when stderr is a pipe.
"""

import collections
import datetime
import sys
import traceback

_lines: collections.deque[str] = collections.deque(maxlen=300)
_coloured = False


def dress(coloured: bool) -> None:
    global _coloured
    _coloured = coloured


def _write(tag: str, text: str) -> None:
    line = f"{tag} {text}" if _coloured else text
    _lines.append(f"{datetime.datetime.now().isoformat()} - {line}\n")
    print(line, file=sys.stderr, flush=True)


def info(text: str) -> None:
    _write("\x1b[32m[INFO]\x1b[0m", text)


def error(text: str) -> None:
    _write("\x1b[1m\x1b[31m[ERROR]\x1b[0m", text)


def exception() -> None:
    error(traceback.format_exc())


def recent() -> str:
    return "".join(_lines)
