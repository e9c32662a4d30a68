"""The page's files and the workflows that it offers. What the page does is tested in tests/ui, by a browser."""

import gzip
import json
import os
import re
import socket

from world import ROOT, image_prompt, until

FILES = sorted(path.name for path in (ROOT / "src" / "ui").iterdir() if path.suffix in (".html", ".js", ".css", ".svg"))


def test_the_page_and_all_its_files_are_there(agent):
    page = agent.get("/ui")
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    for name in FILES:
        reply = agent.get(f"/ui/{name}")
        assert reply.status == 200, name
        assert reply.body == (ROOT / "src" / "ui" / name).read_bytes(), name
        packed = agent.get(f"/ui/{name}", **{"accept-encoding": "br, gzip"})
        assert packed.headers["content-encoding"] == "gzip" and gzip.decompress(packed.body) == reply.body
        assert packed.headers["vary"] == "accept-encoding" and packed.headers["etag"] != reply.headers["etag"]
        for head in (reply.headers, packed.headers):
            policy = head["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert head["x-content-type-options"] == "nosniff" and head["cache-control"] == "no-cache"
    assert agent.ask("HEAD", "/ui").headers["content-length"] == str(len(page.body))
    assert agent.get("/ui/nothing.js").status == 404
    assert agent.get("/ui/").headers["location"] == "../ui"
    assert agent.ask("POST", "/ui").headers["allow"] == "GET, HEAD"


def test_what_a_browser_has_is_not_sent_again(agent):
    tag = agent.get("/ui/app.js").headers["etag"]
    again = agent.get("/ui/app.js", **{"if-none-match": tag})
    assert again.status == 304 and again.body == b"" and again.headers["etag"] == tag
    packed = agent.get("/ui/app.js", **{"if-none-match": tag, "accept-encoding": "gzip"})
    assert packed.status == 200, "the tag of other bytes"


def test_the_page_needs_nothing_from_elsewhere():
    for name in FILES:
        text = (ROOT / "src" / "ui" / name).read_text()
        outside = set(re.findall(r"https?://[a-z0-9.-]+|[\"'(]//[a-z0-9.-]+", text)) - {"http://www.w3.org"}
        assert outside == set(), name
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=\"", text), name


def test_without_a_key_a_person_is_asked_for_it(world):
    agent = world.agent(env={"API_KEY": "one"})
    asked = agent.get("/ui", accept="text/html")
    assert asked.status == 401 and b'name="key"' in asked.body and asked.headers["cache-control"] == "no-store"
    assert agent.get("/ui").code == agent.get("/ui/app.js", accept="text/html").code == "no_key"
    assert agent.get("/api/workflows").status == 401
    entered = agent.get("/ui?key=one", accept="text/html", **{"sec-fetch-site": "same-origin"})
    assert entered.status == 303 and entered.headers["location"] == "./ui"
    assert agent.get("/ui", cookie=entered.headers["set-cookie"].split(";")[0]).status == 200


# --- workflows -------------------------------------------------------------------------------------


def names(agent):
    return [one["name"] for one in agent.get("/api/workflows").json["workflows"]]


def test_workflows_are_the_json_files_of_a_directory(world):
    place = world.directory / "flows"
    place.mkdir()
    for name in ("b.json", "a b.json", "人像.json", ".hidden.json", "notes.txt", ".json", "c\td.json"):
        (place / name).write_text(json.dumps(image_prompt(1)))
    agent = world.agent(env={"WORKFLOWS_DIR": str(place)})
    assert names(agent) == ["a b", "b", "人像"]
    reply = agent.get("/api/workflows/a%20b")
    assert reply.status == 200 and reply.body == (place / "a b.json").read_bytes()
    assert reply.headers["content-type"] == "application/json"
    (place / "new.json").write_text("[]")
    assert "new" in names(agent) and agent.get("/api/workflows/new").body == b"[]"


def test_only_files_of_that_directory_and_only_json(world):
    place = world.directory / "flows"
    place.mkdir()
    (world.directory / "secret.json").write_text('{"a": 1}')
    (place / "sub").mkdir()
    (place / "sub" / "in.json").write_text("{}")
    (place / "dir.json").mkdir()
    (place / "bad.json").write_text('{"a": ')
    (place / "huge.json").write_text('["' + "x" * (8 << 20) + '"]')
    os.mkfifo(place / "pipe.json")
    agent = world.agent(env={"WORKFLOWS_DIR": str(place)})
    for name in ("..%2Fsecret", "../secret", "%2e%2e%2fsecret", "sub%2Fin", "dir", "pipe", "none", "%00", "a%00", "%ff", "%",
                 ".", "..", "x" * 300, "..%5Csecret"):
        reply = agent.get(f"/api/workflows/{name}")
        assert reply.status == 404, (name, reply)
    assert agent.get("/api/workflows/bad").code == "workflow_not_json"
    assert agent.get("/api/workflows/huge").code == "workflow_unreadable"
    assert agent.get("/healthz").status == 200


def test_without_a_directory_there_are_none(world):
    agent = world.agent(env={"WORKFLOWS_DIR": str(world.directory / "not there")})
    assert names(agent) == []
    assert agent.get("/api/workflows/a").status == 404


def test_who_leaves_and_a_stop_meanwhile(world):
    place = world.directory / "flows"
    place.mkdir()
    (place / "large.json").write_text("[" + "1," * 100000 + "1]")
    agent = world.agent(env={"WORKFLOWS_DIR": str(place)})
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", agent.port)) as client:
            client.sendall(b"GET /api/workflows/large HTTP/1.1\r\nhost: x\r\n\r\n")
    until("the requests to be over", lambda: agent.get("/api/workflows").status == 200)
    agent.stop()
