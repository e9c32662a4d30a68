"""Clients that are slow, rude, many or dishonest: each gets its answer, nobody else notices."""

import contextlib
import json
import pathlib
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import Peer, image_prompt, node, post, until

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
TEXT = {"1": node("TestText", text="x")}


def served(agent):
    return agent.get("/healthz").status == 200


def cpu_ms(pid):
    """Processor time of its threads, by the scheduler's clock."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6


def resident_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])


# --- what is HTTP ----------------------------------------------------------------------------------


def test_requests_in_a_row_are_answered_in_their_order(agent):
    """All are sent before the first is answered; a slow one does not let a quick one overtake."""
    said = b""
    for n in range(20):
        said += post("/api/run", {"1": node("TestSleep", ms=5 if n % 3 else 50, seed=n)}, f"task-id: row-{n}")
        said += f"GET /api/status?id=row-{n} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    peer = Peer(agent.port, said)
    for n in range(20):
        run, status = peer.hear("POST"), peer.hear()
        assert (run.status, run.headers["task-id"]) == (200, f"row-{n}")
        assert (status.status, status.headers["task-id"]) == (200, f"row-{n}")
        assert status.headers["task-status"] == "succeeded"
    peer.leave()


def chunked(body, sizes):
    parts = []
    while body:
        size = sizes[len(parts) % len(sizes)]
        parts.append(b"%x\r\n%s\r\n" % (len(body[:size]), body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("sizes", [[1], [7, 1, 300], [100_000]])
def test_a_body_in_chunks(agent, sizes):
    body = json.dumps({"1": node("TestText", text="y" * 500)}).encode()
    peer = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    peer.say(chunked(body, sizes) + GET)
    assert peer.hear("POST").json["1"]["text"] == ["y" * 500]
    assert peer.hear().status == 200
    peer.leave()


def test_who_asks_before_sending_is_told_to_go_on(agent):
    asked = post("/api/run", TEXT, "expect: 100-continue")
    head, body = asked.split(b"\r\n\r\n", 1)
    peer = Peer(agent.port, head + b"\r\n\r\n")
    assert peer.stream.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert peer.stream.readline() == b"\r\n"
    peer.say(body)
    assert peer.hear("POST").status == 200
    peer.leave()


def test_who_asks_before_sending_too_much_is_told_at_once(world):
    agent = world.agent(env={"BODY_MAX_BYTES": "2000"})
    peer = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2001\r\n\r\n")
    assert peer.hear("POST").status == 413
    peer.leave()


def test_a_request_that_comes_byte_by_byte(agent):
    peer = Peer(agent.port)
    for byte in post("/api/run", TEXT, "task-id: bytes") + GET:
        peer.say(bytes([byte]))
    assert peer.hear("POST").headers["task-id"] == "bytes"
    assert peer.hear().status == 200
    peer.leave()


def test_http_1_0_has_no_chunks(agent):
    body = json.dumps(image_prompt(1)).encode()
    peer = Peer(agent.port, b"POST /api/run HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    head, _, answer = peer.stream.read().partition(b"\r\n\r\n")
    assert b" 200 " in head and b"chunked" not in head.lower()
    assert json.loads(answer)["2"]["results"]
    peer.leave()


# --- what is not -----------------------------------------------------------------------------------

CHUNKED = b"transfer-encoding: chunked\r\n"
SMUGGLING = {
    "length and chunks": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"content-length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "one length twice": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
    "a list of lengths": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\na",
    "a signed length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
    "a negative length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "a length in hex": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x1\r\n\r\na",
    "an empty length": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: \r\n\r\n",
    "a blank before the colon": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length : 1\r\n\r\na",
    "a blank before a name": b"POST / HTTP/1.1\r\n host: x\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\nhost: x\r\nx: a\r\n b\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab in a coding": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "an unknown coding last": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "quoted coding": b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nhost: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a lone line feed": b"GET / HTTP/1.1\nhost: x\n\n",
    "a lone line feed at the end": b"GET / HTTP/1.1\r\nhost: x\r\n\n",
    "a lone carriage return": b"GET / HTTP/1.1\r\nhost: x\r\nx: a\rb: c\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nhost: x\r\nnonsense\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\nhost: x\r\n: y\r\n\r\n",
    "a name with a bracket": b"GET / HTTP/1.1\r\nhost: x\r\na[b: y\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    "no version": b"GET /\r\nhost: x\r\n\r\n",
    "another protocol": b"GET / RTSP/1.0\r\nhost: x\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "an unknown method": b"GETS / HTTP/1.1\r\nhost: x\r\n\r\n",
    "nonsense": b"\xff\xfe\xfd",
}
BAD_CHUNKS = {
    "no size": b"\r\n\r\n",
    "a size that is none": b"zz\r\nab\r\n0\r\n\r\n",
    "a size with a sign": b"+2\r\nab\r\n0\r\n\r\n",
    "a size in 0x": b"0x2\r\nab\r\n0\r\n\r\n",
    "a blank before the size": b" 2\r\nab\r\n0\r\n\r\n",
    "a size of 17 digits": b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "more than was said": b"2\r\nabc\r\n0\r\n\r\n",
    "a line feed for an end": b"2\nab\n0\n\n",
    "a length in the trailer that is folded": b"0\r\nx: a\r\n b\r\n\r\n",
}
LATER = b"GET /healthz HTTP/1.1\r\nhost: smuggled\r\n\r\n"


@pytest.mark.parametrize("name", SMUGGLING)
def test_a_head_that_two_readers_could_read_differently_is_refused(agent, name):
    peer = Peer(agent.port, SMUGGLING[name] + LATER)
    reply = peer.hear()
    assert reply.status == 400, reply
    assert reply.json["error"]["code"] and reply.headers["connection"] == "close"
    assert peer.hears_the_end(), "what follows is nobody's request"
    peer.leave()
    assert served(agent)


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_body_that_two_readers_could_read_differently_is_refused(agent, name):
    peer = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\n" + CHUNKED + b"\r\n" + BAD_CHUNKS[name] + LATER)
    assert peer.hear("POST").status in (400, 413)
    assert peer.hears_the_end()
    peer.leave()
    assert served(agent)


@pytest.mark.parametrize("version, status", [(b"HTTP/1.2", 505), (b"HTTP/2.0", 505), (b"HTTP/0.9", 505)])
def test_versions_that_are_not_spoken_are_505(agent, version, status):
    peer = Peer(agent.port, b"GET /healthz " + version + b"\r\nhost: x\r\n\r\n")
    assert peer.hear().status == status
    peer.leave()


@pytest.mark.parametrize("length", [b"9" * 18, b"18446744073709551616", b"9" * 60],
                         ids=["18 digits", "2^64", "60 digits"])
def test_lengths_beyond_all_bounds_are_413(agent, length):
    peer = Peer(agent.port, b"POST /api/run HTTP/1.1\r\nhost: x\r\ncontent-length: " + length + b"\r\n\r\n{")
    assert peer.hear("POST").status == 413
    peer.leave()


def test_a_target_that_is_too_long_is_414(agent):
    peer = Peer(agent.port, b"GET /healthz?" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert peer.hear().status == 414
    assert peer.hears_the_end()
    peer.leave()
    assert agent.get("/healthz?" + "a" * 8000).status == 200


@pytest.mark.parametrize("head", [b"x: " + b"a" * 40_000 + b"\r\n", b"".join(b"x%d: a\r\n" % n for n in range(200)),
                                  b"a" * 40_000 + b": x\r\n"], ids=["value", "count", "name"])
def test_a_head_that_is_too_large_is_431(agent, head):
    peer = Peer(agent.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n")
    assert peer.hear().status == 431
    assert peer.hears_the_end()
    peer.leave()
    assert served(agent)


def test_a_head_that_does_not_end_is_not_waited_for_or_kept(agent):
    peer = Peer(agent.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ")
    with pytest.raises(OSError):
        for _ in range(4000):
            peer.say(b"a" * 65536)
    peer.leave()
    assert served(agent)


def test_a_head_that_is_slow_is_408_however_busy_it_looks(world):
    agent = world.agent(env={"HEAD_TIMEOUT": "400ms"})
    silent = Peer(agent.port, b"GET /healthz HT")
    busy = Peer(agent.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
    for n in range(20):  # a second of signs of life
        busy.say(b"x%d: a\r\n" % n)
        time.sleep(0.05)
    assert busy.hear().status == 408
    assert silent.hear().status == 408
    assert silent.hears_the_end()
    mute = Peer(agent.port)
    assert mute.hears_the_end(), "who says nothing is told nothing"
    for peer in (silent, busy, mute):
        peer.leave()


# --- many and slow ---------------------------------------------------------------------------------


def test_a_thousand_idle_connections_cost_little_and_disturb_nobody(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    agent = world.agent()
    assert agent.run(TEXT).status == 200
    before = resident_kib(agent.pid)
    peers = [Peer(agent.port, GET) for _ in range(1000)]
    for peer in peers:
        assert peer.hear().status == 200
    each = (resident_kib(agent.pid) - before) / 1000
    print(f"{each:.1f} KiB for an idle connection")
    assert each < 16
    assert agent.run(image_prompt(1)).status == 200
    for peer in peers[::50]:
        peer.say(GET)
        assert peer.hear().status == 200
    for peer in peers:
        peer.leave()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_comes_when_all_places_are_taken_gets_that_of_the_idlest(world):
    agent = world.agent(env={"MAX_CONNECTIONS": "8"})
    peers = []
    for _ in range(20):
        peers.append(Peer(agent.port, GET))
        assert peers[-1].hear().status == 200
    assert peers[0].hears_the_end()
    peers[-1].say(GET)
    assert peers[-1].hear().status == 200
    for peer in peers:
        peer.leave()


def test_sixty_four_descriptors_are_enough_for_what_was_taken(world):
    """Of a hundred that say nothing some are sent away; who comes then is served, and so are a hundred at once."""
    agent = world.agent(url=world.comfyui().url, prefix=("prlimit", "--nofile=64:64"), env={"HEAD_TIMEOUT": "500ms"})
    silent = [Peer(agent.port) for _ in range(100)]
    assert agent.run(image_prompt(1), "first").status == 200
    with ThreadPoolExecutor(100) as pool:
        running = [pool.submit(agent.run, image_prompt(n), f"t{n}") for n in range(2, 102)]
    told = [each.result() for each in running if each.exception() is None]
    assert {reply.status for reply in told} == {200}
    assert not any("task-stored" in reply.headers for reply in told)
    sent_away = [n for n, each in enumerate(running, 2) if each.exception() is not None]
    assert len(sent_away) < 80
    for n in sent_away:  # whatever became of the connection, the same again is one run
        assert agent.run(image_prompt(n), f"t{n}").status == 200
    for peer in silent:
        peer.leave()


def soft_limit(pid):
    (line,) = [line for line in open(f"/proc/{pid}/limits") if line.startswith("Max open files")]
    return int(line.split()[3])


@pytest.mark.parametrize("hard, taken", [(600, 2 * 200 + 64), (300, 300)])
def test_descriptors_are_taken_as_far_as_allowed_and_comfyui_keeps_its_own(world, hard, taken):
    """256 of them are enough for 96 connections."""
    agent = world.agent(prefix=("prlimit", f"--nofile=256:{hard}"), env={"MAX_CONNECTIONS": "200"})
    assert soft_limit(agent.pid) == taken
    assert soft_limit(agent.comfy.state()["pid"]) == 256
    peers = [Peer(agent.port, GET) for _ in range(110)]
    for _ in range(2):
        for peer in peers:
            assert peer.hear().status == 200
            peer.say(GET)
    for peer in peers:
        peer.leave()


def test_a_reader_that_never_reads_is_not_waited_for_by_others(world):
    agent = world.agent()
    big = {"1": node("TestBigImage", bytes=64 << 20, filename_prefix="big")}
    slow = Peer(agent.port, post("/api/run", big, "task-id: big"))
    until("the end of the run", lambda: agent.get("/api/status?id=big").headers["task-status"] == "succeeded")
    before = resident_kib(agent.pid)
    for n in range(20):
        assert agent.run(image_prompt(n)).status == 200
    assert slow.socket.recv(9) == b"HTTP/1.1 "
    assert resident_kib(agent.pid) - before < 8 * 1024, "nothing piles up for the one who does not read"
    slow.leave(reset=True)
    assert served(agent)


# --- bombs -----------------------------------------------------------------------------------------

M32 = 32 << 20
LEAST, EARLY, PLAIN, SLOW = 0.7, 2.4, 7, 12  # measured: 0.2, 1.4 to 2.0, 3.2 to 4.1, 4.9 to 7.0
BOMBS = {  # what is sent, the answer, and what it may cost: a multiple of what passing on so much does
    "arrays in arrays": (lambda: b"[" * (M32 - 10), 400, EARLY),
    "objects in objects": (lambda: b'{"a":' * (M32 // 5 - 2), 400, EARLY),
    "values": (lambda: b'{"a":[' + b"1," * (M32 // 2 - 10) + b"1]}", 400, EARLY),
    "strings": (lambda: b'{"a":[' + b'"",' * (M32 // 3 - 10) + b'""]}', 400, EARLY),
    "the same key": (lambda: b"{" + b'"a":1,' * (M32 // 6 - 2) + b'"a":1}', 400, EARLY),
    "too long": (lambda: b"x" * (M32 + 1), 413, LEAST),
    # No bombs: these are read to their end.
    "blanks": (lambda: b" " * (M32 - 10), 400, PLAIN),
    "a string without an end": (lambda: b'{"a":"' + b"x" * (M32 - 10), 400, PLAIN),
    "escapes": (lambda: b'{"a":"' + b"\\u0041" * (M32 // 6 - 2) + b"\\x", 400, SLOW),
    "digits": (lambda: b'{"a":' + b"1" * (M32 - 10) + b"}", 400, SLOW),
}
TIMES = 6


def upload():
    """As large, and only passed on."""
    head = b'--B\r\ncontent-disposition: form-data; name="image"; filename="large.png"\r\n\r\n'
    return post("/upload/image", head + b"x" * (M32 - 200) + b"\r\n--B--\r\n",
                "content-type: multipart/form-data; boundary=B")


def throw(agent, request):
    """The status of the answer."""
    peer = Peer(agent.port)
    with contextlib.suppress(OSError):  # it was refused before all of it was sent
        peer.say(request)
    reply = peer.hear("POST")
    peer.leave()
    return reply.status


def costs_ms(agent, *requests):
    """The least processor time of each, by turns: what else goes on only adds to it."""
    costs = [[] for _ in requests]
    for _ in range(TIMES):
        for of_one, (request, status) in zip(costs, requests):
            before = cpu_ms(agent.pid)
            assert throw(agent, request) == status
            of_one.append(cpu_ms(agent.pid) - before)
    return [min(of_one) for of_one in costs]


@pytest.mark.release
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_the_agent_little(agent, name):
    body, status, times = BOMBS[name]
    passed_on, bomb = costs_ms(agent, (upload(), 200), (post("/api/run", body()), status))
    print(f"{name}: {bomb:.1f} ms, passed on: {passed_on:.1f} ms, {bomb / passed_on:.2f}")
    assert bomb < times * passed_on


def test_small_bombs(agent):
    """The same with what sanitizers can chew."""
    for name, (body, status, _) in BOMBS.items():
        if status == 400:
            assert agent.run(body()[:1 << 20]).status == 400, name
    assert served(agent)
