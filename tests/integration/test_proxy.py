"""Everything that is no route of ours: ComfyUI's pages and API through us."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import websockets

from upstream import Upstream, reply
from world import ask, image_prompt, node, until

HOP = {"connection", "keep-alive", "date", "content-length", "transfer-encoding", "server"}
MIB = 1024 * 1024


@pytest.fixture
def upstream():
    made = Upstream()
    yield made
    made.close()


def in_front_of(world, upstream, env=None, name="agent"):
    """An agent that lets requests through to a server of the test's own."""
    agent = world.agent(name, ready=False, url=upstream.url, env=env)
    key = {"x-api-key": (env or {}).get("API_KEY", "").split(",")[0]}
    until("the proxy to be open", lambda: agent.answers() and agent.get("/up", **key).status != 503)
    return agent


def raw(agent, request, until_has=None):
    """A connection with so much sent and, if asked for, so much received."""
    connection = socket.create_connection(("127.0.0.1", agent.port), timeout=60)
    connection.sendall(request)
    got = b""
    while until_has is not None and until_has not in got:
        part = connection.recv(65536)
        assert part, got
        got += part
    return connection, got


def end_to_end(reply):
    return sorted((name.lower(), value) for name, value in reply.headers.items() if name.lower() not in HOP)


def memory(agent):
    """Peak resident bytes since the last call."""
    status = open(f"/proc/{agent.pid}/status").read()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    with open(f"/proc/{agent.pid}/clear_refs", "w") as refs:
        refs.write("5")
    return peak


# --- ComfyUI itself ------------------------------------------------------------------------------

READS = ["/", "/queue", "/api/queue", "/prompt", "/api/prompt", "/history", "/api/history?max_items=1",
         "/object_info", "/api/object_info/KSampler", "/object_info/Nothing", "/embeddings", "/extensions",
         "/api/models", "/models/checkpoints", "/features", "/nothing", "/scripts/no.js", "/userdata",
         "/view", "/view?filename=..", "/view?filename=x&type=bad", "/history?max_items=x", "/api/jobs"]


def test_it_answers_through_us_as_it_does_itself(both):
    agent = both.agent()
    for path in READS:
        for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
            direct = ask(agent.comfy.port, method, path)
            through = agent.ask(method, path)
            assert through.status == direct.status, (method, path)
            assert through.body == direct.body, (method, path)
            assert end_to_end(through) == end_to_end(direct), (method, path)


def test_a_file_with_ranges_and_conditions(world):
    agent = world.agent()
    content = os.urandom(300000)
    boundary = b"--b\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a b.png\"\r\n\r\n"
    body = boundary + content + b"\r\n--b--\r\n"
    uploaded = agent.ask("POST", "/upload/image", body, {"content-type": "multipart/form-data; boundary=b"})
    assert uploaded.status == 200 and uploaded.json["name"] == "a b.png"
    assert agent.comfy.state()["uploads"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    path = "/api/view?filename=a%20b.png&type=input"
    whole = agent.get(path)
    assert whole.body == content and whole.headers["content-type"] == "image/png"
    part = agent.get(path, range="bytes=1000-1999")
    assert part.status == 206 and part.body == content[1000:2000]
    assert part.headers["content-range"] == "bytes 1000-1999/300000"
    assert agent.get(path, range="bytes=900000-").status == 416
    same = agent.get(path, **{"if-none-match": whole.headers["etag"]})
    assert same.status == 304 and same.body == b""
    head = agent.ask("HEAD", path)
    assert head.headers["content-length"] == "300000" and head.body == b""


async def run_over_the_socket(agent, color):
    async with websockets.connect(f"ws://127.0.0.1:{agent.port}/ws?clientId=me", max_size=None) as ws:
        first = json.loads(await ws.recv())
        assert first["type"] == "status" and first["data"]["sid"] == "me"
        prompt = json.dumps({"prompt": image_prompt(color), "client_id": "me"})
        posted = await asyncio.to_thread(agent.ask, "POST", "/api/prompt", prompt)
        assert posted.status == 200
        seen = []
        while True:
            news = json.loads(await asyncio.wait_for(ws.recv(), 60))
            seen.append(news["type"])
            if news["type"] == "executing" and news["data"]["node"] is None:
                return posted.json["prompt_id"], seen


def test_a_websocket_client_follows_a_prompt(both):
    agent = both.agent()
    prompt_id, seen = asyncio.run(run_over_the_socket(agent, 5))
    assert "executed" in seen and "execution_start" in seen
    assert prompt_id in agent.get(f"/history/{prompt_id}").json
    until("its socket to be gone", lambda: agent.comfy.state()["ws"]["open"] == 1)  # ours


def test_large_messages_of_every_kind_pass(world):
    agent = world.agent()

    async def talk():
        async with websockets.connect(f"ws://127.0.0.1:{agent.port}/ws?clientId=me", max_size=None,
                                      compression="deflate") as ws:
            assert ws.extensions == []  # offered, and taken off
            await ws.recv()
            prompt = {"1": node("TestFlood", n=20, bytes=900000)}
            await asyncio.to_thread(agent.ask, "POST", "/prompt", json.dumps({"prompt": prompt, "client_id": "me"}))
            sizes = []
            while len(sizes) < 20:
                news = await asyncio.wait_for(ws.recv(), 60)
                if isinstance(news, bytes):
                    sizes.append(len(news))
            return sizes

    assert min(asyncio.run(talk())) >= 900000


def test_a_refused_handshake_comes_back_as_it_is(world):
    agent = world.agent()
    agent.comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "status": 503, "body": "busy"})
    with pytest.raises(websockets.InvalidStatusCode) as refused:
        asyncio.run(run_over_the_socket(agent, 1))
    assert refused.value.status_code == 503


@pytest.mark.parametrize("framing", ["Content-Length: 4\r\n\r\nbusy",
                                     "Transfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n"])
def test_what_refuses_a_handshake_loses_what_was_of_one_hop(world, upstream, framing):
    agent = in_front_of(world, upstream)
    said = "HTTP/1.1 503 Busy\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Kept: 2\r\nX-Fc-Status: 3\r\n" + framing
    upstream.routes["/socket"] = lambda c, _: c.sendall(said.encode())
    shake = (b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bm8gc2VjcmV0IGhlcmUhIQ==\r\n\r\n")
    connection, got = raw(agent, shake, until_has=b"\r\n\r\nbusy")
    connection.close()
    line, *headers = got.decode().split("\r\n\r\n")[0].split("\r\n")
    names = sorted(header.split(":")[0].lower() for header in headers)
    assert line.split()[1] == "503" and names == ["content-length", "date", "x-kept"]


# --- headers -------------------------------------------------------------------------------------


def test_what_comfyui_would_take_for_a_foreign_page_does_not_reach_it(world):
    agent = world.agent()
    own = f"http://127.0.0.1:{agent.port}"
    page = {"origin": own, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert agent.get("/queue", **page).status == 200
    assert agent.ask("POST", "/prompt", json.dumps({"prompt": image_prompt(1)}), page).status == 200

    async def connect(origin):
        async with websockets.connect(f"ws://127.0.0.1:{agent.port}/ws", origin=origin) as ws:
            return await ws.recv()

    assert "status" in asyncio.run(connect(own))


def test_our_key_is_not_for_comfyui(world, upstream):
    agent = in_front_of(world, upstream, env={"API_KEY": "one, two"})
    visit = agent.get("/ui?key=two", accept="text/html")
    ours = visit.headers["set-cookie"].split(";")[0]

    def seen(*headers):
        connection, got = raw(agent, "\r\n".join(["GET /x HTTP/1.1", "Host: x", *headers, "", ""]).encode(), b"}")
        connection.close()
        assert got.startswith(b"HTTP/1.1 200 "), got
        return upstream.asked[-1]

    for header in ("X-Api-Key: one", "Authorization: bearer two", f"Cookie: {ours}", f"cookie: ;{ours};"):
        asked = seen(header)
        assert (asked.all("x-api-key"), asked.all("authorization"), asked.all("cookie")) == ([], [], []), header
    asked = seen("Authorization: Bearer other", f"Cookie: a=b; {ours}; comfy-agents=c; d", "Cookie: e=f", f"Cookie: {ours}")
    assert asked.all("authorization") == ["Bearer other"]
    assert asked.all("cookie") == ["a=b; comfy-agents=c; d; e=f"]
    assert seen("X-Api-Key: two", "Authorization: Bearer other", "Authorization: Bearer one").all("authorization") == []
    theirs = "x=" + "y" * 20_000  # too much to be there twice, which only happens beside ours
    assert seen("X-Api-Key: one", f"Cookie:  {theirs};a;").all("cookie") == [f"{theirs};a;"]
    refused, got = raw(agent, f"GET /x HTTP/1.1\r\nHost: x\r\nCookie: {ours}; {theirs}\r\n\r\n".encode(), b"}")
    refused.close()
    assert got.startswith(b"HTTP/1.1 431 ")
    asked = seen("Connection: upgrade", "Upgrade: websocket", f"Cookie: {ours}")
    assert asked.all("upgrade") == ["websocket"] and asked.all("cookie") == []
    opened = in_front_of(world, upstream, name="open")
    opened.get("/x?key=one", authorization="Bearer one", cookie=ours)
    asked = upstream.asked[-1]
    assert (asked.all("authorization"), asked.all("cookie")) == (["Bearer one"], [ours])
    assert asked.target == "/x?key=one"


@pytest.mark.parametrize("sent, seen", [("/x?key=one", "/x"), ("/x?a=%20b&key=two&c", "/x?a=%20b&c"), ("/x?k%65y=one&key=3", "/x"),
                                        ("http://h/x?key=one", "/x"), ("http://h?key=one&a", "/?a")])
@pytest.mark.parametrize("upgrade", [(), ("Connection: upgrade", "Upgrade: websocket")], ids=["relay", "tunnel"])
def test_our_key_in_an_address_is_not_for_comfyui(world, upstream, sent, seen, upgrade):
    agent = in_front_of(world, upstream, env={"API_KEY": "one, two"})
    request = "\r\n".join([f"GET {sent} HTTP/1.1", "Host: h", *upgrade, "", ""])
    connection, got = raw(agent, request.encode(), b"}")
    connection.close()
    assert got.startswith(b"HTTP/1.1 200 "), got
    assert upstream.asked[-1].target == seen


def test_a_key_in_an_address_that_is_not_ours_goes_on(world, upstream):
    agent = in_front_of(world, upstream, env={"API_KEY": "one"})
    agent.get("/x?key=theirs&key=one", **{"x-api-key": "one"})
    assert upstream.asked[-1].target == "/x?key=theirs&key=one"


def test_foreign_pages_reach_nothing(world):
    agent = world.agent()
    evil = {"origin": "http://evil.example"}
    before = agent.comfy.state()["requests"].get("GET /queue", 0)
    for headers in (evil, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}):
        assert agent.get("/queue", **headers).code == "origin_refused"
        assert agent.ask("POST", "/prompt", json.dumps({"prompt": image_prompt(1)}), headers).status == 403
    with pytest.raises(websockets.InvalidStatusCode) as refused:
        async def connect():
            async with websockets.connect(f"ws://127.0.0.1:{agent.port}/ws", origin="http://evil.example"):
                pass
        asyncio.run(connect())
    assert refused.value.status_code == 403
    assert agent.comfy.prompts == []
    assert agent.comfy.state()["ws"]["opened"] == 1  # ours
    assert agent.comfy.state()["requests"].get("GET /queue", 0) == before


def test_a_link_of_another_site_leads_to_pages_and_pictures_only(world, upstream):
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    agent = in_front_of(world, upstream)
    for path in ("/", "/?tab=2", "/view?filename=a.png", "/api/view?filename=a.png"):
        assert agent.get(path, **visit).status == 200, path
    before = len(upstream.asked)
    for path in ("/manager/reboot", "/api/manager/reboot", "/queue", "/views", "/view/", "/x/view", "/%76iew/../manager"):
        assert agent.get(path, **visit).code == "origin_refused", path
    framed = {**visit, "sec-fetch-dest": "iframe"}
    assert agent.get("/", **framed).code == "origin_refused"
    assert len(upstream.asked) == before
    assert agent.get("/", **{**framed, "sec-fetch-site": "same-origin"}).status == 200
    assert agent.get("/view?filename=a.png", **framed).status == 200
    for headers in (visit, framed, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}):
        sibling = {**headers, "sec-fetch-site": "same-site"}  # another port or subdomain
        assert agent.get("/manager/reboot", **sibling).code == "origin_refused", headers
        assert agent.get("/view?filename=a.png", **sibling).status == 200, headers
    assert agent.get("/", **{**framed, "sec-fetch-site": "same-site"}).status == 200
    assert agent.get("/manager/reboot", **{**visit, "sec-fetch-site": "none"}).status == 200  # typed in
    for origins, headers in (("*", {}), ("https://a.example", {"origin": "https://a.example"})):
        friend = in_front_of(world, upstream, name=f"friend{len(headers)}", env={"ALLOW_ORIGINS": origins})
        assert friend.get("/queue", **visit, **headers).status == 200


def test_the_key_is_over_the_proxy_too(world):
    agent = world.agent(env={"API_KEY": "one"})
    assert agent.get("/queue").code == "no_key"
    assert agent.get("/queue", **{"x-api-key": "one"}).status == 200


def test_headers_on_their_way(world, upstream):
    agent = in_front_of(world, upstream)
    request = (b"GET /path%20x?a=b%20c HTTP/1.1\r\nHost: outside.example:80\r\nOrigin: http://outside.example:80\r\n"
               b"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nX-Kept: 2\r\nTE: trailers\r\n"
               b"X-Forwarded-For: 1.2.3.4\r\nUpgrade: h2c\r\n\r\n")
    connection, _ = raw(agent, request, b"}")
    connection.close()
    asked = upstream.asked[-1]
    assert asked.target == "/path%20x?a=b%20c"
    assert asked.all("host") == [upstream.url[len("http://"):]]
    assert sorted(name.lower() for name, _ in asked.headers) == [
        "host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"]
    assert asked.all("x-forwarded-for") == ["1.2.3.4, 127.0.0.1"]
    assert asked.all("x-forwarded-host") == ["outside.example:80"]


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
def test_targets_with_a_scheme_and_a_host(world, upstream, offer):
    agent = in_front_of(world, upstream)
    for target, asked in ((b"http://h?x=1", "/?x=1"), (b"http://h:80/a?b", "/a?b"), (b"HTTP://h/", "/"),
                          (b"http://h", "/")):
        connection, got = raw(agent, b"GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n" % (target, offer), b"}")
        connection.close()
        assert got.startswith(b"HTTP/1.1 200 "), (target, got)
        assert upstream.asked[-1].target == asked


def test_ours_is_the_only_cors(world, upstream):
    upstream.routes["/cors"] = lambda c, _: reply(c, b"x", headers=[
        "Access-Control-Allow-Origin: *", "access-control-allow-credentials: true", "X-Kept: 1"])
    agent = in_front_of(world, upstream, env={"ALLOW_ORIGINS": "https://a.example"})
    answer = agent.get("/cors", origin="https://a.example")
    assert answer.headers.get_all("access-control-allow-origin") == ["https://a.example"]
    assert answer.headers.get_all("access-control-allow-credentials") is None
    assert answer.headers["x-kept"] == "1"


# --- bodies, up ----------------------------------------------------------------------------------


def test_bodies_of_all_sizes(world, upstream):
    agent = in_front_of(world, upstream)
    for size in (0, 1, 16384, 16385, 500000):
        body = os.urandom(size)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert agent.ask(method, "/up", body).status == 200
            assert (upstream.asked[-1].method, upstream.asked[-1].body) == (method, body)
            assert agent.ask(method, "/up", iter([body[:7], body[7:]])).status == 200  # chunked
            assert upstream.asked[-1].body == body


def test_continue_is_said_when_comfyui_takes_the_upload(world, upstream):
    agent = in_front_of(world, upstream)
    head = b"POST /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    connection, _ = raw(agent, head, b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.sendall(b"12345")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert upstream.asked[-1].body == b"12345" and upstream.asked[-1].all("expect") == []
    connection.close()


def test_an_answer_before_the_whole_upload_arrives(world, upstream):
    agent = world.agent()  # refuses at its limit of 100 MiB
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=60)
    connection.putrequest("POST", "/prompt")
    connection.putheader("content-length", str(300 * MIB))
    connection.endheaders()
    with contextlib.suppress(OSError):
        for _ in range(300):
            connection.send(bytes(MIB))
    answer = connection.getresponse()
    assert answer.status == 413
    connection.close()


def test_uploads_follow_each_other_whole_however_late_they_are_read(world):
    agent = world.agent()
    pid = agent.comfy.state()["pid"]
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=60)
    for chunked in (False, True, False):
        picture = os.urandom(8 * MIB)
        head = b'--b\r\ncontent-disposition: form-data; name="image"; filename="big.png"\r\n\r\n'
        form = head + picture + b"\r\n--b--\r\n"
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
        connection.request("POST", "/upload/image", [form] if chunked else form, encode_chunked=chunked,
                           headers={"content-type": "multipart/form-data; boundary=b",
                                    **({"transfer-encoding": "chunked"} if chunked else {})})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        assert agent.comfy.state()["uploads"][-1]["sha256"] == hashlib.sha256(picture).hexdigest()
    connection.close()


def test_who_leaves_after_his_upload_ends_the_call(world, upstream):
    left = threading.Event()

    def never_answers(connection, _):
        connection.settimeout(20)
        with contextlib.suppress(TimeoutError):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            left.set()
        return "close"

    upstream.routes["/late"] = never_answers
    agent = in_front_of(world, upstream)
    connection, _ = raw(agent, b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100000))
    connection.close()
    assert left.wait(20)


def test_an_upload_that_breaks_off_reaches_nobody_as_whole(world, upstream):
    agent = in_front_of(world, upstream)
    before = len(upstream.asked)
    connection, _ = raw(agent, b"POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(50000))
    connection.close()
    connection, _ = raw(agent, b"POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                        b"HTTP/1.1 400 ")
    connection.close()
    assert agent.get("/after").status == 200
    assert len(upstream.asked) == before + 1


# --- bodies, down --------------------------------------------------------------------------------


def test_answers_of_all_shapes(world, upstream):
    def until_close(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil close")
        return "close"

    upstream.routes["/close"] = until_close
    upstream.routes["/old"] = lambda c, _: c.sendall(b"HTTP/1.0 200 OK\r\n\r\nold") or "close"
    upstream.routes["/chunked"] = lambda c, _: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n")
    upstream.routes["/none"] = lambda c, _: c.sendall(b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n")
    upstream.routes["/same"] = lambda c, _: c.sendall(
        b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n")
    upstream.routes["/hints"] = lambda c, _: c.sendall(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    upstream.routes["/head"] = lambda c, _: c.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Type: image/png\r\n\r\n")
    upstream.routes["/teapot"] = lambda c, _: reply(c, b"short", "418 I'm a teapot")
    agent = in_front_of(world, upstream)
    for path, status, body in (("/close", 200, b"until close"), ("/old", 200, b"old"), ("/chunked", 200, b"abcdefg"),
                               ("/none", 204, b""), ("/same", 304, b""), ("/hints", 200, b"ok"),
                               ("/teapot", 418, b"short")):
        for _ in range(2):  # on kept connections too
            answer = agent.get(path)
            assert (answer.status, answer.body) == (status, body), path
    head = agent.ask("HEAD", "/head")
    assert head.headers["content-length"] == "12345" and head.headers["content-type"] == "image/png"
    assert agent.get("/same").headers["etag"] == '"x"'


def test_connections_to_comfyui_are_kept_however_many(world, upstream):
    """A new one for most requests of a busy time would cost more than the requests."""
    at_once = 40
    together, used = threading.Barrier(at_once), set()

    def meet(connection, _):
        used.add(connection.getpeername())
        together.wait(60)
        reply(connection)

    upstream.routes["/meet"] = meet
    agent = in_front_of(world, upstream)
    with ThreadPoolExecutor(at_once) as clients:
        for _ in range(3):
            assert {answer.status for answer in clients.map(agent.get, ["/meet"] * at_once)} == {200}
    assert len(used) == at_once


def test_an_answer_that_breaks_off_is_no_whole_one(world, upstream):
    upstream.routes["/length"] = lambda c, _: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc") or "close"
    upstream.routes["/chunked"] = lambda c, _: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n") or "close"
    upstream.routes["/junk"] = lambda c, _: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n") or "close"
    agent = in_front_of(world, upstream)
    for path in ("/length", "/chunked", "/junk"):
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            agent.get(path)
    assert agent.get("/after").status == 200


def test_no_answer_is_502_in_json(world, upstream):
    upstream.routes["/nothing"] = lambda c, _: "close"
    upstream.routes["/ssh"] = lambda c, _: c.sendall(b"SSH-2.0-x\r\n\r\n") or "close"
    agent = in_front_of(world, upstream)
    for path in ("/nothing", "/ssh"):
        for method in ("GET", "POST"):
            answer = agent.ask(method, path)
            assert (answer.status, answer.code) == (502, "comfyui_error"), (path, method)


def test_comfyui_killed_during_a_download(world):
    agent = world.agent()
    (world.output).mkdir(exist_ok=True)
    with open(world.output / "big.png", "wb") as file:
        file.truncate(64 * MIB)
    connection, got = raw(agent, b"GET /view?filename=big.png HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ") and b"67108864" in got
    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    total = len(got)
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(MIB):
            total += len(part)
    assert total < 64 * MIB
    connection.close()
    until("its death to be seen", lambda: agent.get("/readyz").status == 503)
    agent.wait_ready()
    assert agent.get("/queue").status == 200


def test_a_client_that_leaves_ends_the_transfer(world, upstream):
    left = threading.Event()

    def endless(connection, _):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            while True:
                connection.sendall(bytes(65536))
        except OSError:
            left.set()
        return "close"

    upstream.routes["/endless"] = endless
    agent = in_front_of(world, upstream)
    connection, _ = raw(agent, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n")
    connection.close()
    assert left.wait(60)


def test_a_client_that_leaves_before_the_answer_ends_the_wait(world, upstream):
    asked, left = threading.Event(), threading.Event()

    def hang(connection, _):
        asked.set()
        with contextlib.suppress(OSError):
            connection.recv(1)
        left.set()
        return "close"

    upstream.routes["/hang"] = hang
    agent = in_front_of(world, upstream)
    connection, _ = raw(agent, b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    assert asked.wait(60)
    connection.close()
    assert left.wait(60)


# --- when there is no ComfyUI --------------------------------------------------------------------


def test_while_it_starts_browsers_get_a_page_and_programs_json(world):
    agent = world.agent(ready=False, comfy_env={"STANDIN_MISBEHAVE": '{"at":"boot","do":"never_bind"}'})
    until("the agent to answer", agent.answers)
    page = agent.get("/", accept="text/html,application/xhtml+xml")
    assert page.status == 503 and page.headers["content-type"].startswith("text/html")
    assert b'http-equiv="refresh"' in page.body and b"ComfyUI is starting" in page.body
    assert int(page.headers["retry-after"]) > 0 and page.headers["cache-control"] == "no-store"
    for answer in (agent.get("/queue"), agent.ask("POST", "/prompt", b"{}", {"accept": "text/html"}),
                   agent.get("/ws", connection="Upgrade", upgrade="websocket")):
        assert (answer.status, answer.code) == (503, "comfyui_not_ready")
        assert int(answer.headers["retry-after"]) > 0
    connection, got = raw(agent, b"POST /upload/image HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                                 b"Content-Length: 9999999\r\n\r\n", b"}}")
    assert got.startswith(b"HTTP/1.1 503 ")  # and nothing of it was asked for
    connection.close()


def test_what_it_died_of_is_on_the_page(world):
    agent = world.agent()
    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    until("the page to tell", lambda: b"signal 9" in agent.get("/", accept="text/html").body)
    until("ComfyUI's own page", lambda: agent.get("/", accept="text/html").status == 200)


# --- PROXY_ALLOW ---------------------------------------------------------------------------------

UI = [("GET", "/queue"), ("GET", "/api/queue"), ("POST", "/prompt"), ("POST", "/api/prompt"), ("POST", "/queue"),
      ("POST", "/interrupt"), ("POST", "/history"), ("POST", "/free"), ("POST", "/upload/image"), ("HEAD", "/"),
      ("POST", "/api/upload/mask"), ("POST", "/userdata/workflows%2Fa.json"), ("POST", "/api/settings/a.b"),
      ("POST", "/userdata/workflows%2Fmove%2Fa.json"), ("GET", "/userdata/a/move/b"), ("GET", "/api/apis"),
      ("POST", "/api/jobs/x/cancel"), ("GET", "/managers"), ("GET", "/extensions/manager/x.js")]
NOT_UI = [("GET", "/manager/reboot"), ("GET", "/api/manager/reboot"), ("GET", "/v2/manager/queue/start"),
          ("GET", "/api/v2/customnode/getlist"), ("POST", "/customnode/install"), ("GET", "/externalmodel/getlist"),
          ("GET", "/%6danager/reboot"), ("GET", "/m%61nager%2Freboot"), ("GET", "//manager/reboot"),
          ("GET", "/x/../manager/reboot"), ("GET", "/x/%2e%2e/manager/reboot"), ("GET", "/./manager/reboot"),
          ("GET", "/snapshot/restore"), ("DELETE", "/userdata/a.json"), ("DELETE", "/queue"),
          ("POST", "/userdata/a/move/b"), ("POST", "/users"), ("PUT", "/prompt"), ("PATCH", "/internal/logs/subscribe"),
          ("GET", "/x%zz"), ("GET", "/x%"), ("GET", "/x%4"), ("GET", "/x\\..\\manager"), ("GET", "/x%5c..%5cmanager"),
          ("GET", "/manager%00"), ("GET", "/api%2fmanager/reboot"), ("GET", "/x%2f%2e%2e%2fmanager"),
          ("GET", "/api/api/manager/reboot"), ("GET", "/v2/api/manager/reboot"), ("GET", "/api/v2/api/v2/manager/x"),
          ("GET", "/v2" * 2700 + "/manager/x"), ("POST", "/userdata/a%2Fb/m%6Fve/c"), ("POST", "/api/userdata/a/move/b")]


def test_ui_is_what_pages_need_and_nothing_that_manages(world, upstream):
    agent = in_front_of(world, upstream, env={"PROXY_ALLOW": "ui"})
    for method, path in UI:
        assert agent.ask(method, path).status == 200, (method, path)
    before = len(upstream.asked)
    for method, path in NOT_UI:
        answer = agent.ask(method, path)
        assert (answer.status, answer.code) == (403, "proxy_refused"), (method, path)
    assert len(upstream.asked) == before


def test_all_and_none(world, upstream):
    agent = in_front_of(world, upstream)
    for method, path in UI + NOT_UI:
        assert agent.ask(method, path).status == 200, (method, path)
    closed = world.agent("closed", ready=False, url=upstream.url, env={"PROXY_ALLOW": "none"})
    until("the agent to answer", closed.answers)
    for method, path in UI + NOT_UI:
        answer = closed.ask(method, path)
        assert answer.status == 404, (method, path)


def test_our_own_routes_are_never_passed_on(world, upstream):
    agent = in_front_of(world, upstream)
    before = len(upstream.asked)
    assert agent.ask("DELETE", "/api/run").status == 405
    assert agent.get("/api/tasks/unknown").status == 404
    assert len(upstream.asked) == before


# --- who is slow, who is large -------------------------------------------------------------------


def deaf_socket(agent):
    """A WebSocket that will never be read."""
    request = (b"GET /ws?clientId=deaf HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
               b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", agent.port))
    connection.sendall(request)
    assert connection.recv(100).startswith(b"HTTP/1.1 101 ")
    return connection


def flood(agent, mib, odd=0):
    """Previews to everybody, and how long they took to reach a client that reads."""

    async def follow():
        async with websockets.connect(f"ws://127.0.0.1:{agent.port}/ws?clientId=reads", max_size=None) as ws:
            await ws.recv()
            prompt = {"1": node("TestFlood", n=mib * 4, bytes=MIB // 4 + odd)}
            await asyncio.to_thread(agent.ask, "POST", "/prompt", json.dumps({"prompt": prompt}))
            began, got = time.monotonic(), 0
            while got < mib * 4:
                got += isinstance(await asyncio.wait_for(ws.recv(), 120), bytes)
            return time.monotonic() - began

    return asyncio.run(follow())


def test_one_that_never_reads_holds_up_nobody(world):
    agent = world.agent()
    alone = flood(agent, 64)
    deaf = deaf_socket(agent)
    assert agent.comfy.state()["ws"]["open"] == 2
    beside = flood(agent, 64, odd=1)
    assert beside < alone * 3 + 1, (alone, beside)
    until("the deaf one to be cut", lambda: agent.comfy.state()["ws"]["open"] == 1)
    with pytest.raises(ConnectionResetError):
        while deaf.recv(MIB):
            pass
    deaf.close()


@pytest.mark.release
def test_a_large_upload_passes_in_little_memory(world):
    agent = world.agent()
    agent.get("/queue")
    memory(agent)
    idle = memory(agent)
    size = 95 * MIB
    part = os.urandom(MIB)
    head = b"--b\r\ncontent-disposition: form-data; name=\"image\"; filename=\"big.png\"\r\n\r\n"
    tail = b"\r\n--b--\r\n"
    whole = hashlib.sha256(part * 95).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=100)
    connection.putrequest("POST", "/upload/image")
    connection.putheader("content-type", "multipart/form-data; boundary=b")
    connection.putheader("content-length", str(len(head) + size + len(tail)))
    connection.endheaders()
    connection.send(head)
    for _ in range(95):
        connection.send(part)
    connection.send(tail)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
    assert agent.comfy.state()["uploads"][0]["sha256"] == whole
    peak = memory(agent)
    assert peak - idle < 4 * MIB, (idle, peak)


@pytest.mark.release
def test_a_large_download_passes_in_little_memory(world, upstream):
    size, part = 1024 * MIB, bytes(MIB)

    def large(connection, _):
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // MIB):
            connection.sendall(part)

    upstream.routes["/large"] = large
    agent = in_front_of(world, upstream)
    memory(agent)
    idle = memory(agent)
    slow, _ = raw(agent, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n")  # and reads no more
    connection, got = raw(agent, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n")
    total = len(got.split(b"\r\n\r\n", 1)[1])
    room = bytearray(MIB)
    while total < size:
        n = connection.recv_into(room)
        assert n > 0
        total += n
    assert total == size
    connection.close()
    slow.close()
    peak = memory(agent)
    assert peak - idle < 4 * MIB, (idle, peak)
