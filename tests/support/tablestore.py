#!/usr/bin/env python3
"""A Tablestore on loopback, stricter than the real one: whatever a client may not do is an error.

It checks signatures (v1 or v4), dates, MD5, every field of every message, every checksum of every row, limits and
conditions, and signs what it answers. With --data it keeps rows in a file, so that it can be killed and come back.

    tablestore.py --port 9100 --instance inst --id KEY --secret SECRET [--token T] [--region R] [--data FILE]
                  [--page ROWS] [--not-ready REQUESTS] [--pem FILE: TLS, with this certificate and key]
                  [--flaky N: every Nth request is refused, or done and called a failure]

Tests steer it on the same port, unsigned: POST /~fault with "<operation or *> <times> <what>", what being one of
    busy, throttled, timeout (done, but says it may not be), error <status> <code>,
    lose (done, then cut), half (done, then cut inside the answer), drop (cut), hang, held (until POST /~release),
    html, bad-md5, bad-crc, unsigned, late
    forged (signed as the answer to something else), fine (no fault: it comes before others)
and POST /~credentials "<id> <secret> [token]", POST /~calm (no faults, counts from 0, clocks agree), POST /~counts: lines of
"<operation> <requests>", "connections <number>" (of requests), "rows <number>" (of the newest table);
POST /~forget "<beginning>": rows of the newest table whose keys begin so are gone;
POST /~row "<table> <key>": the document in it, put together, or 404; POST /~older "<seconds>": everything was written
so long before; POST /~hang-up: connections that are idle end; POST /~clock "<seconds>": the server's is ahead of ours by so much; POST /~alien "<name>…": rows of other people in the newest table.
"""
import argparse
import asyncio
import base64
import datetime
import hashlib
import hmac
import pickle
import re
import ssl
import struct
import sys
import time
import uuid

MIB = 1024 * 1024
NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{0,254}")
SKEW = 15 * 60


class Refusal(Exception):
    def __init__(self, status, code, message):
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message


def invalid(message):
    return Refusal(400, "OTSParameterInvalid", message)


# --- rows -----------------------------------------------------------------------------------------

def crc8_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ 0x107 if value & 0x80 else value << 1
        table.append(value)
    return table


CRC8 = crc8_table()


def crc8(data, crc=0):
    """x^8 is a 127th root of one modulo the polynomial: bytes that are 127 apart count alike, so that large data can
    be folded to 127 bytes first."""
    if len(data) > 1000:
        data = bytes([crc ^ data[0]]) + data[1:]
        crc, number, size = 0, int.from_bytes(data, "big"), len(data)
        while size > 127:
            size = 127 * ((size + 253) // 254)
            number = (number >> 8 * size) ^ (number & ((1 << 8 * size) - 1))
        data = number.to_bytes(size, "big")
    for byte in data:
        crc = CRC8[crc ^ byte]
    return crc


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise invalid("The plain buffer is cut off.")
        self.at += size
        return self.data[self.at - size:self.at]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]

    def next_is(self, tag):
        return self.at < len(self.data) and self.data[self.at] == tag

    def tag(self, tag):
        if not self.next_is(tag):
            raise invalid(f"Tag {tag:02x} expected at {self.at} of the plain buffer.")
        self.at += 1


def read_value(raw):
    """(type, value) of a stored value; what no client of ours may send is refused."""
    kind = raw[0] if raw else None
    if kind == 0 and len(raw) == 9:
        return "INTEGER", struct.unpack("<q", raw[1:])[0]
    if kind in (3, 7) and len(raw) >= 5 and struct.unpack("<I", raw[1:5])[0] == len(raw) - 5:
        if kind == 3:
            try:
                raw[5:].decode()
            except UnicodeDecodeError as error:
                raise invalid("A string is not UTF-8.") from error
        return ("STRING" if kind == 3 else "BLOB"), raw[5:]
    raise invalid("A value is not valid.")


def read_cell(reader):
    reader.tag(0x03)
    reader.tag(0x04)
    name = reader.take(reader.u32())
    if not NAME.fullmatch(name):
        raise invalid("The column name is not valid.")
    reader.tag(0x05)
    raw = reader.take(reader.u32())
    value = read_value(raw)
    crc = crc8(raw, crc8(name))
    reader.tag(0x0a)
    if reader.take(1)[0] != crc:
        raise invalid("A cell's checksum is wrong.")
    return name.decode(), value, crc


def read_row(data):
    """(key, {column: value}, deletes)"""
    reader = Reader(data)
    if reader.take(4) != b"\x75\0\0\0":
        raise invalid("No plain buffer.")
    reader.tag(0x01)
    name, key, crc = read_cell(reader)
    crcs, columns = [crc], {}
    if name != "k" or key[0] != "STRING" or reader.next_is(0x03):
        raise Refusal(400, "OTSInvalidPK", "Validate PK name fail.")
    if len(key[1]) > 1024:
        raise invalid("The key is longer than 1 KB.")
    if reader.next_is(0x02):
        reader.tag(0x02)
        while not columns or reader.next_is(0x03):
            name, value, crc = read_cell(reader)
            if name in columns:
                raise invalid("A column comes twice.")
            if value[0] != "INTEGER" and len(value[1]) > 2 * MIB:
                raise invalid("A column is larger than 2 MB.")
            columns[name] = value
            crcs.append(crc)
    deletes = reader.next_is(0x08)
    if deletes:
        reader.tag(0x08)
    reader.tag(0x09)
    if reader.take(1)[0] != crc8(bytes(crcs) + bytes([deletes])):
        raise invalid("The row's checksum is wrong.")
    if reader.at != len(data):
        raise invalid("Something follows the row.")
    return key[1], columns, deletes


def cell(name, value, when=None):
    kind, content = value
    if kind == "INTEGER":
        raw = b"\0" + struct.pack("<q", content)
    else:
        raw = (b"\3" if kind == "STRING" else b"\7") + struct.pack("<I", len(content)) + content
    crc = crc8(raw, crc8(name.encode()))
    out = b"\3\4" + struct.pack("<I", len(name)) + name.encode() + b"\5" + struct.pack("<I", len(raw)) + raw
    if when is not None:
        stamp = struct.pack("<q", when)
        crc = crc8(stamp, crc)
        out += b"\7" + stamp
    return out + b"\n" + bytes([crc]), crc


def row(key, columns, header=True):
    """columns: [(name, value, time)]"""
    text, crc = cell("k", ("STRING", key))
    out, crcs = (b"\x75\0\0\0" if header else b"") + b"\1" + text, [crc]
    for i, (name, value, when) in enumerate(columns):
        text, crc = cell(name, value, when)
        out += (b"\2" if i == 0 else b"") + text
        crcs.append(crc)
    return out + b"\t" + bytes([crc8(bytes(crcs) + b"\0")])


# --- messages -------------------------------------------------------------------------------------

def varint(value):
    out = b""
    value &= (1 << 64) - 1
    while value > 0x7f:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def message(data, schema):
    """{name: value} by {number: (name, type)}; a list where the type ends with '*'; '!' must be there."""
    reader, out, last = Reader(data), {}, 0

    def number():
        value = 0
        for i in range(10):
            byte = reader.take(1)[0]
            value |= (byte & 0x7f) << 7 * i
            if byte < 0x80:
                return value - (1 << 64) if value >> 63 else value
        raise invalid("A varint is too long.")

    while reader.at < len(data):
        key = number()
        name, kind = schema.get(key >> 3, (None, ""))
        if name is None or key & 7 != (0 if kind[0] == "i" else 2):
            raise invalid(f"Field {key >> 3} is not expected.")
        if key >> 3 < last or (key >> 3 == last and "*" not in kind):
            raise invalid("Fields are not in order.")
        last = key >> 3
        value = number() if kind[0] == "i" else reader.take(number())
        if "*" in kind:
            out.setdefault(name, []).append(value)
        else:
            out[name] = value
    for name, kind in schema.values():
        if "!" in kind and name not in out:
            raise invalid(f"{name} is missing.")
    return out


WRITE = {1: ("table", "b!"), 2: ("row", "b!"), 3: ("condition", "b!")}
CONDITION = {1: ("row", "i!"), 2: ("filter", "b")}
FILTER = {1: ("type", "i!"), 2: ("filter", "b!")}
SINGLE = {1: ("comparator", "i!"), 2: ("column", "b!"), 3: ("value", "b!"), 4: ("if_missing", "i!"),
          5: ("latest", "i!")}
GET = {1: ("table", "b!"), 2: ("key", "b!"), 3: ("columns", "b*"), 5: ("versions", "i!")}
RANGE = {1: ("table", "b!"), 2: ("direction", "i!"), 3: ("columns", "b*"), 5: ("versions", "i!"), 6: ("limit", "i"),
         7: ("from", "b!"), 8: ("before", "b!")}
CREATE = {1: ("meta", "b!"), 2: ("reserved", "b!"), 3: ("options", "b!")}
META = {1: ("table", "b!"), 2: ("key", "b!")}
KEY = {1: ("name", "b!"), 2: ("type", "i!")}
OPTIONS = {1: ("ttl", "i!"), 2: ("versions", "i!"), 5: ("deviation", "i")}
CONSUMED = field(1, field(1, field(1, 0) + field(2, 1)))


class Tables:
    def __init__(self, args):
        self.args = args
        self.tables = {}  # name: {"rows": {key: {column: (value, time)}}, "ttl": s, "not_ready": n}
        self.skew = 0  # ms that clocks of ours are ahead of those that stamped
        self.log = None
        if args.data:
            self.load(args.data)
            self.log = open(args.data, "ab", buffering=0)

    def load(self, path):
        try:
            with open(path, "rb") as file:
                while True:
                    self.apply(*pickle.load(file))
        except (FileNotFoundError, EOFError, pickle.UnpicklingError):
            pass

    def apply(self, table, key, columns):
        rows = self.tables.setdefault(table, {"rows": {}, "ttl": -1, "not_ready": 0})["rows"]
        if columns is not None:
            rows[key] = columns
        elif key is not None:
            rows.pop(key, None)

    def change(self, table, key, columns):
        self.apply(table, key, columns)
        if self.log:
            self.log.write(pickle.dumps((table, key, columns)))

    def table(self, name):
        table = self.tables.get(name)
        if table is None:
            raise Refusal(404, "OTSObjectNotExist", "Requested table does not exist.")
        if table["not_ready"] > 0:
            table["not_ready"] -= 1
            raise Refusal(404, "OTSTableNotReady", "Table is not ready.")
        return table

    def live(self, table, key):
        """The row's columns that are not too old."""
        now = time.time() * 1000 + self.skew
        found = table["rows"].get(key, {})
        ttl = table["ttl"]
        return {name: at for name, at in found.items() if ttl < 0 or now - at[1] < ttl * 1000}

    @staticmethod
    def condition_holds(text, found):
        condition = message(text, CONDITION)
        if condition["row"] not in (0, 1, 2):
            raise invalid("No such row existence expectation.")
        if (condition["row"] == 1 and not found) or (condition["row"] == 2 and found):
            return False
        if "filter" not in condition:
            return True
        outer = message(condition["filter"], FILTER)
        single = message(outer["filter"], SINGLE)
        kind, value = read_value(single["value"])
        if outer["type"] != 1 or kind != "INTEGER" or not 1 <= single["comparator"] <= 6:
            raise invalid("A filter of this kind is not expected.")
        cell_found = found.get(single["column"].decode())
        if cell_found is None:
            return not single["if_missing"]
        (_, stored), _ = cell_found
        return [stored == value, stored != value, stored > value, stored >= value, stored < value,
                stored <= value][single["comparator"] - 1]

    def write(self, body, deletes):
        request = message(body, WRITE)
        key, columns, marked = read_row(request["row"])
        if marked != deletes or (deletes and columns) or (not deletes and not columns):
            raise invalid("The row does not fit the operation.")
        table = self.table(request["table"])
        if not self.condition_holds(request["condition"], self.live(table, key)):
            raise Refusal(403, "OTSConditionCheckFail", "Condition check failed.")
        now = int(time.time() * 1000) + self.skew
        self.change(request["table"], key, None if deletes else {n: (v, now) for n, v in columns.items()})
        return CONSUMED

    @staticmethod
    def chosen(columns, names):
        return [(n, *columns[n]) for n in sorted(columns) if not names or n.encode() in names]

    def get(self, body):
        request = message(body, GET)
        key, columns, marked = read_row(request["key"])
        if columns or marked or request["versions"] != 1:
            raise invalid("No key, or no number of versions.")
        found = self.live(self.table(request["table"]), key)
        return CONSUMED + field(2, row(key, self.chosen(found, request.get("columns"))) if found else b"")

    def range(self, body):
        request = message(body, RANGE)
        first, before = read_row(request["from"]), read_row(request["before"])
        if request["direction"] != 0 or request["versions"] != 1 or first[0] >= before[0]:
            raise invalid("Begin key must less than end key in FORWARD.")
        table = self.table(request["table"])
        keys = sorted(k for k in table["rows"] if first[0] <= k < before[0])
        limit = min(request.get("limit", 5000), 5000, self.args.page)
        out, rows = b"", 0
        for key in keys[:limit]:
            columns = self.chosen(self.live(table, key), request.get("columns"))
            if columns:
                out += row(key, columns, header=rows == 0)
                rows += 1
        answer = CONSUMED + field(2, out)
        return answer + field(3, row(keys[limit], [])) if len(keys) > limit else answer

    def create(self, body):
        request = message(body, CREATE)
        meta, options = message(request["meta"], META), message(request["options"], OPTIONS)
        key = message(meta["key"], KEY)
        if not NAME.fullmatch(meta["table"]) or key != {"name": b"k", "type": 2} or options["versions"] != 1:
            raise invalid("A table of another kind is expected.")
        if options["ttl"] != -1 and options["ttl"] < 86400:
            raise invalid("time_to_live must be -1 or at least 86400.")
        if meta["table"] in self.tables:
            raise Refusal(409, "OTSObjectAlreadyExist", "Requested table already exists.")
        self.change(meta["table"], None, None)
        self.tables[meta["table"]].update(ttl=options["ttl"], not_ready=self.args.not_ready)
        return b""

    def document(self, table, key):
        """As the agent keeps them: see store/ots_doc.h."""
        rows = self.tables.get(table.encode(), {"rows": {}})["rows"]
        found = rows.get((f"~{key[:-5]}" if key.endswith("~task") else key).encode())
        if found is None or "v" in found:
            return found and found["v"][0][1]
        parts = [rows[name]["v"][0][1] for name in sorted(
            (name for name in rows if name.startswith(f"-{key}:".encode() + found["p"][0][1])),
            key=lambda name: int(name.rsplit(b":", 1)[1]))]
        return b"".join(parts)

    def run(self, operation, body):
        if operation == "PutRow":
            return self.write(body, False)
        if operation == "DeleteRow":
            return self.write(body, True)
        if operation == "GetRow":
            return self.get(body)
        if operation == "GetRange":
            return self.range(body)
        if operation == "CreateTable":
            return self.create(body)
        raise Refusal(400, "OTSUnsupportOperation", "Unsupported operation.")


# --- requests -------------------------------------------------------------------------------------

def sha1(key, text):
    return base64.b64encode(hmac.new(key, text, hashlib.sha1).digest()).decode()


class Server:
    def __init__(self, args):
        self.args = args
        self.tables = Tables(args)
        self.faults = []  # [operation, times, what…]
        self.clock = 0
        self.requests = 0
        self.counts = {}
        self.connections = set()
        self.released = asyncio.Event()

    def key(self, day):
        """What signs: the secret, or version 4's key of the day."""
        if not self.args.region:
            return self.args.secret.encode()
        key = hmac.new(b"aliyun_v4" + self.args.secret.encode(), day.encode(), hashlib.sha256).digest()
        for step in (self.args.region, "ots", "aliyun_v4_request"):
            key = hmac.new(key, step.encode(), hashlib.sha256).digest()
        return base64.b64encode(key)

    def check(self, operation, headers, body):
        ots = {name: value for name, value in headers.items() if name.startswith("x-ots-")}
        given = ots.pop("x-ots-signaturev4" if self.args.region else "x-ots-signature", None)
        want = {"x-ots-accesskeyid", "x-ots-apiversion", "x-ots-contentmd5", "x-ots-date", "x-ots-instancename"}
        if self.args.token:
            want.add("x-ots-ststoken")
        if self.args.region:
            want |= {"x-ots-signdate", "x-ots-signregion"}
        if given is None or (want ^ set(ots)) - {"x-ots-ststoken"}:
            raise Refusal(403, "OTSAuthFailed", f"Headers are missing or too many: {sorted(want ^ set(ots))}")
        for name in ("expect", "content-type", "transfer-encoding"):
            if name in headers:
                raise invalid(f"A header is not expected: {name}")
        if ots["x-ots-apiversion"] != "2015-12-31" or ots["x-ots-instancename"] != self.args.instance:
            raise invalid("API version or instance.")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ots["x-ots-date"]):
            raise invalid("The date is not valid.")
        date = datetime.datetime.fromisoformat(ots["x-ots-date"].replace("Z", "+00:00"))
        if abs(date.timestamp() - time.time() - self.clock) > SKEW:
            raise Refusal(403, "OTSAuthFailed", "Mismatch between system time and x-ots-date.")
        text = f"/{operation}\nPOST\n\n" + "".join(f"{name}:{ots[name]}\n" for name in sorted(ots))
        if self.args.region:
            day = ots["x-ots-signdate"]
            signature = base64.b64encode(
                hmac.new(self.key(day), (text + "ots").encode(), hashlib.sha256).digest()).decode()
            if day != date.strftime("%Y%m%d") or ots["x-ots-signregion"] != self.args.region:
                signature = None
        else:
            signature = sha1(self.args.secret.encode(), text.encode())
        if (ots["x-ots-accesskeyid"], ots.get("x-ots-ststoken", ""), given) != (self.args.id, self.args.token,
                                                                              signature):
            raise Refusal(403, "OTSAuthFailed", "Signature mismatch.")
        if ots["x-ots-contentmd5"] != base64.b64encode(hashlib.md5(body).digest()).decode():
            raise invalid("The MD5 of the body is wrong.")

    def answer(self, operation, status, body, fault, day):
        now = datetime.datetime.now(datetime.timezone.utc)
        now += datetime.timedelta(seconds=self.clock - (16 * 60 if fault == "late" else 0))
        operation = "Another" if fault == "forged" else operation
        if fault == "bad-crc" and len(body) > 20:
            body = body[:-1] + bytes([body[-1] ^ 1])
        ots = {
            "x-ots-contentmd5": base64.b64encode(hashlib.md5(body + (b"x" if fault == "bad-md5" else b"")).digest())
            .decode(),
            "x-ots-contenttype": "protocol buffer",
            "x-ots-date": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "x-ots-requestid": str(uuid.uuid4()),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in ots.items())
        if fault != "unsigned":
            text = "".join(f"{name}:{ots[name]}\n" for name in sorted(ots)) + "/" + operation
            lines += f"Authorization: OTS {self.args.id}:{sha1(self.key(day), text.encode())}\r\n"
        return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def fault(self, operation):
        for fault in self.faults:
            if fault[0] in (operation, "*") and fault[1] > 0:
                fault[1] -= 1
                return fault[2:]
        self.requests += 1
        if self.args.flaky and self.requests % self.args.flaky == 0:
            return [("busy", "timeout")[self.requests // self.args.flaky % 2]]
        return [None]

    async def serve(self, operation, headers, body):
        """The bytes to answer, and whether the connection goes on. None: nothing is said."""
        self.counts[operation] = self.counts.get(operation, 0) + 1
        what, *more = self.fault(operation)
        refusals = {"busy": (503, "OTSServerBusy", "Server is busy."),
                    "throttled": (403, "OTSNotEnoughCapacityUnit", "Capacity unit is not enough.")}
        try:
            self.check(operation, headers, body)
            if what == "hang":
                await asyncio.sleep(3600)
            if what == "held":
                self.released.clear()
                await self.released.wait()
            if what in ("drop", "html"):
                page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>"
                return page if what == "html" else b"", what == "html"
            if what in refusals or what == "error":
                raise Refusal(*(refusals[what] if what in refusals else (int(more[0]), more[1], "As told.")))
            if len(body) > 4 * MIB:
                raise Refusal(413, "OTSRequestBodyTooLarge", "The request body is too large.")
            status, out = 200, self.tables.run(operation, body)
            if what == "timeout":
                raise Refusal(503, "OTSTimeout", "Operation timeout.")
        except Refusal as refusal:
            if refusal.code not in ("OTSConditionCheckFail", "OTSObjectNotExist"):
                print(operation, refusal, file=sys.stderr, flush=True)
            status, out = refusal.status, field(1, refusal.code.encode()) + field(2, refusal.message.encode())
            what = "unsigned" if refusal.code == "OTSAuthFailed" else what
        text = self.answer(operation, status, out, what, headers.get("x-ots-signdate", ""))
        if what in ("lose", "half"):
            return text[:len(text) // 2 if what == "half" else 0], False
        return text, True

    def steer(self, path, body):
        words = body.decode().split()
        if path == "/~fault":
            self.faults.append([words[0], int(words[1]), *words[2:]])
        elif path == "/~credentials":
            self.args.id, self.args.secret, self.args.token = (words + [""])[:3]
        elif path == "/~calm":
            self.faults.clear()
            self.counts.clear()
            self.connections.clear()
            self.clock = self.tables.skew = 0
        elif path == "/~clock":
            self.clock = int(words[0])
        elif path == "/~hang-up":
            for writer in self.connections:
                writer.close()
        elif path == "/~older":
            self.tables.skew += int(words[0]) * 1000
        elif path == "/~alien":
            newest = list(self.tables.tables.values())[-1]
            newest["rows"].update({name.encode(): {"o": (("INTEGER", 1), 1)} for name in words})
        elif path == "/~release":
            self.released.set()
        elif path == "/~forget":
            rows = list(self.tables.tables.values())[-1]["rows"]
            for key in [key for key in rows if key.startswith(words[0].encode())]:
                del rows[key]
        elif path == "/~row":
            found = self.tables.document(*words)
            head = "404 X" if found is None else "200 OK"
            return f"HTTP/1.1 {head}\r\nContent-Length: {len(found or b'')}\r\n\r\n".encode() + (found or b"")
        newest = list(self.tables.tables.values())[-1:]
        counts = dict(self.counts, connections=len(self.connections), rows=sum(len(t["rows"]) for t in newest))
        text = "".join(f"{name} {count}\n" for name, count in counts.items())
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()

    async def request(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, version = head[0].split(" ")
        headers = {}
        for line in head[1:-2]:
            name, value = line.split(":", 1)
            if name.lower() in headers:
                raise ValueError(f"{name} comes twice")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if target.startswith("/~"):
            text, go_on = self.steer(target, body), True
        elif method != "POST" or version != "HTTP/1.1" or not re.fullmatch(r"/[A-Za-z]+", target):
            raise ValueError(head[0])
        else:
            self.connections.add(writer)
            text, go_on = await self.serve(target[1:], headers, body)
        writer.write(text)
        await writer.drain()
        return go_on

    async def connection(self, reader, writer):
        try:
            while await self.request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, asyncio.LimitOverrunError) as error:
            print("no request of Tablestore's:", error, file=sys.stderr, flush=True)
        finally:
            writer.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--instance", default="inst")
    parser.add_argument("--id", default="key")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--token", default="")
    parser.add_argument("--region", default="")
    parser.add_argument("--data", default="")
    parser.add_argument("--page", type=int, default=5000)
    parser.add_argument("--pem", default="")
    parser.add_argument("--flaky", type=int, default=0)
    parser.add_argument("--not-ready", type=int, default=0)
    server = Server(parser.parse_args())
    tls = None
    if server.args.pem:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(server.args.pem)
    listener = await asyncio.start_server(server.connection, "127.0.0.1", server.args.port, backlog=512, ssl=tls)
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
