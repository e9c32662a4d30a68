"""The cases of Autobahn's groups 1 to 7 (what is sent, and which end is right), under its numbers, against
an echo server made of our WebSocket (tests/echo). 246 of them: three it only informs of, and any end is right
in 7.13. Each is said in one piece and again byte by byte, which must make no difference."""

import itertools
import os
import socket
import struct
import subprocess
from collections import namedtuple

import pytest

from live import ws_request
from world import AGENT, PATIENCE

ECHO = AGENT.parents[1] / "tests" / "echo" / "ws_echo"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NORMAL, PROTOCOL, INVALID = 1000, 1002, 1007
ANY = None

pytestmark = pytest.mark.skipif(not ECHO.exists(), reason="this build has no echo server")

# `parts`: what is said, in pieces between which nothing may come back. `heard`: (opcode, payload) of what comes
# back before the close frame. `codes`: of the close frame; b"" in them: it may be without one. `asks`: we say
# close once all was heard, else the end comes of what was said.
Case = namedtuple("Case", "name parts heard codes asks chop", defaults=[None])


def frame(opcode, payload=b"", fin=True, rsv=0):
    mask = os.urandom(4)
    size = len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    return head + mask + bytes(a ^ b for a, b in zip(payload, itertools.cycle(mask)))


def fragments(opcode, *payloads):
    """One message."""
    last = len(payloads) - 1
    return b"".join(frame(opcode if n == 0 else 0, part, fin=n == last) for n, part in enumerate(payloads))


def by_byte(payload):
    return fragments(TEXT, *(bytes([byte]) for byte in payload))


def close(code=NORMAL, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


def echoed(name, said, *heard, chop=None):
    return Case(name, [said], list(heard), {NORMAL}, True, chop)


def failed(name, said, *heard, code=PROTOCOL):
    return Case(name, [said], list(heard), {code}, False)


def closed(name, said, *heard, codes=(NORMAL,)):
    return Case(name, [said], list(heard), codes if codes is ANY else set(codes), False)


def framing():
    sizes = [0, 125, 126, 127, 128, 65535, 65536, 65536]
    for group, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate(sizes, 1):
            chop = 997 if number == 8 else None
            yield echoed(f"1.{group}.{number}", frame(opcode, byte * size), (opcode, byte * size), chop=chop)


def pings():
    odd = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    for number, payload in ((1, b""), (2, b"Hello, world!"), (3, odd), (4, b"\xfe" * 125)):
        yield echoed(f"2.{number}", frame(PING, payload), (PONG, payload))
    yield failed("2.5", frame(PING, b"\xfe" * 126))
    yield echoed("2.6", frame(PING, b"\xfe" * 125), (PONG, b"\xfe" * 125), chop=1)
    yield closed("2.7", frame(PONG) + close())
    yield closed("2.8", frame(PONG, b"nobody asked") + close())
    yield echoed("2.9", frame(PONG, b"nobody asked") + frame(PING, b"ping"), (PONG, b"ping"))
    ten = [b"payload-%d" % n for n in range(10)]
    for number, chop in ((10, None), (11, 1)):
        said = b"".join(frame(PING, payload) for payload in ten)
        yield echoed(f"2.{number}", said, *((PONG, payload) for payload in ten), chop=chop)


HELLO = b"Hello, world!"
FIRST = frame(TEXT, HELLO)


def reserved():
    """Bits, then opcodes. After the first that is wrong nothing is answered, not even a ping."""
    yield failed("3.1", frame(TEXT, HELLO, rsv=1))
    for number, rsv in ((2, 2), (3, 3), (4, 4)):
        yield failed(f"3.{number}", FIRST + frame(TEXT, HELLO, rsv=rsv) + frame(PING), (TEXT, HELLO))
    yield failed("3.5", frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5))
    yield failed("3.6", frame(BINARY, HELLO, rsv=6))
    yield failed("3.7", frame(CLOSE, rsv=7))
    for group, opcode in ((1, 3), (2, 11)):
        yield failed(f"4.{group}.1", frame(opcode))
        yield failed(f"4.{group}.2", frame(opcode + 1, b"reserved"))
        for number, payload in ((3, b""), (4, HELLO), (5, HELLO)):
            said = FIRST + frame(opcode + number - 1, payload) + frame(PING)
            yield failed(f"4.{group}.{number}", said, (TEXT, HELLO))


def fragmentation():
    one, two, whole = b"fragment1", b"fragment2", (TEXT, b"fragment1fragment2")
    yield failed("5.1", frame(PING, one, fin=False) + frame(0, two))
    yield failed("5.2", frame(PONG, one, fin=False) + frame(0, two))
    for number, chop in ((3, None), (4, 20), (5, 1)):
        yield echoed(f"5.{number}", fragments(TEXT, one, two), whole, chop=chop)
    for number, chop in ((6, None), (7, 20), (8, 1)):
        said = frame(TEXT, one, fin=False) + frame(PING, b"ping") + frame(0, two)
        yield echoed(f"5.{number}", said, (PONG, b"ping"), whole, chop=chop)
    for number, fin in ((9, True), (10, True), (11, True), (12, False), (13, False), (14, False)):
        yield failed(f"5.{number}", frame(0, b"of nothing", fin=fin) + frame(TEXT, HELLO))
    yield failed("5.15", fragments(TEXT, one, two) + frame(0, b"3", fin=False) + frame(TEXT, b"4"), whole)
    for number, fin in ((16, False), (17, True)):
        yield failed(f"5.{number}", 2 * (frame(0, one, fin=fin) + frame(TEXT, two, fin=False) + frame(0, b"3")))
    yield failed("5.18", frame(TEXT, one, fin=False) + frame(TEXT, two))
    for number, chop in ((19, None), (20, 1)):
        said = (frame(TEXT, one, fin=False) + frame(0, two, fin=False) + frame(PING, b"1") + frame(0, b"3", fin=False) +
                frame(0, b"4", fin=False) + frame(PING, b"2") + frame(0, b"5"))
        yield echoed(f"5.{number}", said, (PONG, b"1"), (PONG, b"2"), (TEXT, one + two + b"345"), chop=chop)


KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"  # κόσμε
LATIN = "Hello-µ@ßöäüàá-UTF-8!!".encode()


def utf8():
    yield echoed("6.1.1", frame(TEXT), (TEXT, b""))
    yield echoed("6.1.2", fragments(TEXT, b"", b"", b""), (TEXT, b""))
    yield echoed("6.1.3", fragments(TEXT, b"", b"middle", b""), (TEXT, b"middle"))
    yield echoed("6.2.1", frame(TEXT, LATIN), (TEXT, LATIN))
    at = LATIN.index("ü".encode())
    yield echoed("6.2.2", fragments(TEXT, LATIN[:at], LATIN[at:]), (TEXT, LATIN))
    yield echoed("6.2.3", by_byte(LATIN), (TEXT, LATIN))
    yield echoed("6.2.4", by_byte(KOSME), (TEXT, KOSME))
    surrogate = KOSME + b"\xed\xa0\x80edited"
    yield failed("6.3.1", frame(TEXT, surrogate), code=INVALID)
    yield failed("6.3.2", by_byte(surrogate), code=INVALID)
    # Wrong long before the end of the message, and refused there: what would follow is not sent.
    beyond = KOSME + b"\xf4\x90\x80\x80edited"
    begun = frame(TEXT, KOSME, fin=False)
    yield Case("6.4.1", [begun, frame(0, b"\xf4\x90\x80\x80", fin=False)], [], {INVALID}, False)
    begun = frame(TEXT, beyond[:12], fin=False)
    yield Case("6.4.2", [begun, frame(0, beyond[12:13], fin=False)], [], {INVALID}, False)
    said = frame(TEXT, beyond)
    yield Case("6.4.3", [said[:-10], said[-10:-6]], [], {INVALID}, False)
    yield Case("6.4.4", [said[:-9], said[-9:-8]], [], {INVALID}, False)


def sequences():
    """Groups 6.5 to 6.23: texts, of which Python says whether they are UTF-8."""
    world = [b"hello" + char.encode() + b"world" for char in "$\u00a2\u20ac\U00024b62"]
    yield [*world, KOSME]
    yield [KOSME[:n] for n in range(1, len(KOSME) + 1)]
    yield [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]
    yield [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"]
    yield [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]
    yield [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]
    yield [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]
    yield [b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:n] for n in range(2, 7)), bytes(range(0x80, 0xbf))]
    starts = ((0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd))
    yield [b"".join(bytes([byte, 0x20]) for byte in range(*span)) for span in starts]
    unfinished = [bytes([first]) + b"\x80" * n for n, first in enumerate((0xc0, 0xe0, 0xf0, 0xf8, 0xfc))]
    unfinished += [bytes([first]) + b"\xbf" * n for n, first in enumerate((0xdf, 0xef, 0xf7, 0xfb, 0xfd))]
    yield unfinished
    yield [b"".join(unfinished)]
    yield [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
    yield [bytes([first]) + b"\x80" * n + b"\xaf" for n, first in enumerate((0xc0, 0xe0, 0xf0, 0xf8, 0xfc))]
    most = ((0xc1, b""), (0xe0, b"\x9f"), (0xf0, b"\x8f\xbf"), (0xf8, b"\x87\xbf\xbf"), (0xfc, b"\x83\xbf\xbf\xbf"))
    yield [bytes([first]) + rest + b"\xbf" for first, rest in most]
    yield [bytes([first]) + b"\x80" * (n + 1) for n, first in enumerate((0xc0, 0xe0, 0xf0, 0xf8, 0xfc))]
    yield [chr(half).encode(errors="surrogatepass")
           for half in (0xd800, 0xdb7f, 0xdb80, 0xdbff, 0xdc00, 0xdf80, 0xdfff)]
    yield [(chr(high) + chr(low)).encode(errors="surrogatepass")
           for high in (0xd800, 0xdb7f, 0xdb80, 0xdbff) for low in (0xdc00, 0xdfff)]
    yield [chr(plane << 16 | last).encode() for plane in range(17) for last in (0xfffe, 0xffff)]
    yield [chr(special).encode() for special in range(0xfff9, 0x10000)]


def is_utf8(text):
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def texts():
    for group, several in enumerate(sequences(), 5):
        for number, text in enumerate(several, 1):
            name = f"6.{group}.{number}"
            if is_utf8(text):
                yield echoed(name, frame(TEXT, text), (TEXT, text))
            else:
                yield failed(name, frame(TEXT, text), code=INVALID)


def closes():
    yield closed("7.1.1", FIRST + close(), (TEXT, HELLO))
    yield closed("7.1.2", close() + frame(CLOSE))
    yield closed("7.1.3", close() + frame(PING))
    yield closed("7.1.4", close() + FIRST)
    yield closed("7.1.5", frame(TEXT, b"1", fin=False) + close() + frame(0, b"2"))
    large = b"BAsd7&jh23" * 26214
    yield closed("7.1.6", frame(TEXT, large) + FIRST + close() + frame(PING), (TEXT, large), (TEXT, HELLO))
    yield closed("7.3.1", frame(CLOSE), codes=(NORMAL, b""))
    yield closed("7.3.2", frame(CLOSE, b"a"), codes=(PROTOCOL,))
    yield closed("7.3.3", close())
    yield closed("7.3.4", close(NORMAL, b"Hello World!"))
    yield closed("7.3.5", close(NORMAL, b"*" * 123))
    yield closed("7.3.6", close(NORMAL, b"*" * 124), codes=(PROTOCOL,))
    yield closed("7.5.1", close(NORMAL, KOSME + b"\xed\xa0\x80edited"), codes=(PROTOCOL, INVALID))
    right = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
    for number, code in enumerate(right, 1):
        yield closed(f"7.7.{number}", close(code), codes=(NORMAL, code))
    for number, code in enumerate([0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999], 1):
        yield closed(f"7.9.{number}", close(code), codes=(PROTOCOL,))
    for number, code in enumerate([5000, 65535], 1):
        yield closed(f"7.13.{number}", close(code), codes=ANY)


CASES = [case for group in (framing, pings, reserved, fragmentation, utf8, texts, closes) for case in group()]


@pytest.fixture(scope="module")
def echo():
    child = subprocess.Popen([ECHO], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield int(child.stdout.readline())
    child.terminate()
    _, complaints = child.communicate(timeout=PATIENCE)
    assert (child.returncode, complaints) == (0, b"")


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(ws_request("/"))
        assert b" 101 " in self.stream.readline()
        while self.stream.readline() != b"\r\n":
            pass

    def say(self, said, chop):
        for at in range(0, len(said), chop or len(said)):
            self.socket.sendall(said[at:at + (chop or len(said))])

    def hears_nothing(self):
        self.socket.settimeout(0.02)
        with pytest.raises(TimeoutError):
            self.socket.recv(1, socket.MSG_PEEK)
        self.socket.settimeout(PATIENCE)

    def hear(self):
        """The next frame, whole and unmasked as a server's must be; None at the end."""
        head = self.stream.read(2)
        if len(head) < 2:
            return None
        assert head[0] & 0xf0 == 0x80 and head[1] < 128, head
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self.stream.read(2 if size == 126 else 8), "big")
        return head[0] & 15, self.stream.read(size)


def both_ways():
    for case in CASES:
        yield pytest.param(case, id=case.name)
        if case.chop != 1 and sum(map(len, case.parts)) < 60000:
            yield pytest.param(case._replace(chop=1), id=case.name + "-by-byte")


@pytest.mark.parametrize("case", both_ways())
def test_case(echo, case):
    client = Client(echo)
    for number, part in enumerate(case.parts):
        if number > 0:
            client.hears_nothing()
        client.say(part, case.chop)
    heard = [client.hear() for _ in case.heard]
    assert heard == case.heard
    if case.asks:
        client.say(close(), None)
    end = client.hear()
    assert end is not None and end[0] == CLOSE
    code = int.from_bytes(end[1][:2], "big") if end[1] else b""
    assert case.codes is ANY or code in case.codes
    client.socket.shutdown(socket.SHUT_WR)
    assert client.hear() is None
    client.socket.close()


def test_that_is_all_of_them():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) == 246
