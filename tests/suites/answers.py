"""Reads what a server said on one connection, as strictly as nobody who has to live with servers would."""

import re

STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [\t\x20-\x7e\x80-\xff]*")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
BODILESS = (204, 304)


class Odd(Exception):
    """That was no answer."""


class Cut(Odd):
    """That was the beginning of one."""


def statuses(said):
    """Of all answers, interim ones included. Whether an answer to HEAD is meant cannot be seen: with a length
    but without a body it is one, if what follows can be read that way only."""
    found = []
    while said:
        status, fields, said = head(said)
        found.append(status)
        if status == 101:
            break  # what follows is no HTTP
        if status < 200 or status in BODILESS:
            continue
        try:
            rest = body(fields, said)
            return found + statuses(rest)
        except Odd:
            if said and not said.startswith(b"HTTP/1.1 "):
                raise
    return found


def head(said):
    text, blank, rest = said.partition(b"\r\n\r\n")
    if not blank:
        raise Cut(said[:200])
    first, *lines = text.split(b"\r\n")
    line = STATUS_LINE.fullmatch(first)
    if not line:
        raise Odd(first[:200])
    fields = {}
    for each in lines:
        field = FIELD.fullmatch(each)
        if not field:
            raise Odd(each[:200])
        name = field[1].lower()
        if name in fields and name in (b"content-length", b"transfer-encoding"):
            raise Odd(each[:200])
        fields[name] = field[2]
    return int(line[1]), fields, rest


def body(fields, said):
    """What follows it."""
    length = fields.get(b"content-length")
    if b"transfer-encoding" in fields:
        if length is not None or fields[b"transfer-encoding"].lower() != b"chunked":
            raise Odd(fields)
        return chunks(said)
    if length is not None:
        if not length.isdigit():
            raise Odd(length)
        if len(said) < int(length):
            raise Cut(said[:200])
        return said[int(length):]
    if fields.get(b"connection", b"").lower() != b"close":
        raise Odd(b"an answer whose end nobody knows")
    return b""


def chunks(said):
    while True:
        size = CHUNK_SIZE.match(said)
        if not size:
            raise Odd(said[:200])
        said, length = said[size.end():], int(size[1], 16)
        if length == 0:
            if not said.startswith(b"\r\n"):
                raise Odd(said[:200])
            return said[2:]
        if said[length:length + 2] != b"\r\n":
            raise Cut(said[:200])
        said = said[length + 2:]
