"""The gate: keys, origins, CORS. Before any body is read, over every route."""

import socket

import pytest

from world import image_prompt

OPEN = ("/healthz", "/readyz")
CLOSED = ("/api/status?id=x", "/api/tasks", "/api/tasks/x", "/api/tasks/x/outputs/0", "/anything")


def test_without_a_key_nothing_but_health_answers(world):
    agent = world.agent(env={"API_KEY": "one, two"})
    for path in OPEN:
        assert agent.get(path).status == 200
    for path in CLOSED:
        reply = agent.get(path)
        assert (reply.status, reply.code) == (401, "no_key"), path
        assert reply.headers["www-authenticate"] == "Bearer"
    assert agent.run(image_prompt(1)).status == 401
    assert agent.ask("DELETE", "/api/tasks/x").status == 401
    assert agent.comfy.prompts == []


@pytest.mark.parametrize("headers", [{"x-api-key": "one"}, {"x-api-key": "two"},
                                     {"authorization": "Bearer two"}, {"authorization": "bearer one"}])
def test_any_of_the_keys_opens(world, headers):
    agent = world.agent(env={"API_KEY": "one, two"})
    assert agent.run(image_prompt(1), headers=headers).status == 200


@pytest.mark.parametrize("headers", [{"x-api-key": "One"}, {"x-api-key": "on"}, {"x-api-key": ""},
                                     {"x-api-key": "one, two"}, {"authorization": "Basic b25l"},
                                     {"authorization": "Bearer"}, {"cookie": "comfy-agent=one"}])
def test_nothing_else_does(world, headers):
    agent = world.agent(env={"API_KEY": "one, two"})
    assert agent.get("/api/tasks", **headers).status == 401


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site"])
def test_a_browser_passes_the_key_once(world, site):
    agent = world.agent(env={"API_KEY": "one"})
    first = agent.get("/api/tasks?key=one&limit=3", accept="text/html,*/*", **{"sec-fetch-site": site})
    assert first.status == 303 and first.headers["location"] == "./tasks?limit=3"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "one" not in cookie
    value = cookie.split(";")[0]
    assert agent.get("/api/tasks", cookie=f"a=b; {value}; c=d").status == 200
    assert agent.get("/api/tasks", cookie=value[:-1] + "x").status == 401
    assert agent.get("/api/tasks?key=two", accept="text/html").status == 401
    assert agent.get("/api/tasks?key=one").status == 200  # no browser: no detour


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, {}])
def test_a_link_on_another_site_may_bring_the_key(world, headers):
    """The cookie is sent on only from a page of ours: a redirect would still be the other site's doing. That
    page's address has the key in it, which nobody is to be told."""
    agent = world.agent(env={"API_KEY": "one"})
    for path, address in (("/api/tasks?key=one", "./tasks"), ("/?a=1&key=one&b", "./?a=1&b")):
        led = agent.get(path, accept="text/html", **headers)
        assert (led.status, led.headers["refresh"]) == (200, f"0; url={address}")
        assert "location" not in led.headers and "SameSite=Strict" in led.headers["set-cookie"]
        assert (led.headers["referrer-policy"], led.headers["cache-control"]) == ("no-referrer", "no-store")
        assert b"one" not in led.body


def test_the_key_is_in_no_log(world):
    agent = world.agent(env={"API_KEY": "s3cr3t-key", "LOG_LEVEL": "debug"})
    agent.get("/api/tasks?key=s3cr3t-key")
    agent.get("/api/tasks", authorization="Bearer s3cr3t-key")
    agent.stop()
    assert "s3cr3t-key" not in agent.text()


def test_a_body_is_not_read_without_a_key(world):
    agent = world.agent(env={"API_KEY": "one"})
    with socket.create_connection(("127.0.0.1", agent.port)) as client:
        client.sendall(b"POST /api/run HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 401")


# --- origins -------------------------------------------------------------------------------------


def test_our_own_pages_may_call_and_others_not(world):
    agent = world.agent()
    own = f"http://127.0.0.1:{agent.port}"
    assert agent.get("/api/tasks", origin=own).status == 200
    for origin in ("http://evil.example", f"http://localhost:{agent.port}", "null", "http://127.0.0.1",
                   f"http://127.0.0.1:{agent.port}.evil.example", own + "/"):
        reply = agent.get("/api/tasks", origin=origin)
        assert (reply.status, reply.code) == (403, "origin_refused"), origin
        assert "access-control-allow-origin" not in reply.headers
    assert agent.run(image_prompt(1), headers={"origin": "http://evil.example"}).status == 403
    assert agent.comfy.prompts == []


def test_what_another_site_embeds_is_refused_but_not_a_link_to_us(world):
    agent = world.agent()
    assert agent.get("/api/tasks", **{"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status == 403
    assert agent.get("/api/tasks", **{"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status == 200
    assert agent.get("/api/tasks", **{"sec-fetch-site": "same-origin"}).status == 200


def test_who_is_refused_is_told_the_id_that_he_gave(world):
    agent = world.agent(env={"API_KEY": "one"})
    for given in ({"headers": {"task-id": "t"}}, {"query": "?task-id=t"}, {"headers": {"x-fc-async-task-id": "t"}}):
        headers = given.get("headers", {})
        query = given.get("query", "")
        for reply in (agent.run(image_prompt(1), headers=headers, query=query),
                      agent.run(image_prompt(1), headers={**headers, "origin": "http://evil.example"}, query=query),
                      agent.ask("PUT", "/api/run" + query, headers={**headers, "x-api-key": "one"})):
            assert reply.status in (401, 403, 405) and reply.headers.get_all("task-id") == ["t"], reply
    assert agent.run(image_prompt(1), "../t").headers["task-id"] is None
    assert agent.get("/api/tasks?task-id=t").headers["task-id"] is None, "that is no run"


def test_a_listed_origin_gets_cors(world):
    agent = world.agent(env={"ALLOW_ORIGINS": "https://a.example, https://b.example", "API_KEY": "one"})
    asked = {"origin": "https://b.example", "access-control-request-method": "POST",
             "access-control-request-headers": "task-id, x-api-key"}
    preflight = agent.ask("OPTIONS", "/api/run", headers=asked)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "https://b.example"
    assert preflight.headers["access-control-allow-headers"] == "task-id, x-api-key"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for reply in (agent.run(image_prompt(1), headers={"origin": "https://b.example", "x-api-key": "one"}),
                  agent.get("/api/tasks/x", origin="https://b.example")):  # also refusals
        assert reply.headers["access-control-allow-origin"] == "https://b.example"
        exposed = reply.headers["access-control-expose-headers"].replace(" ", "").split(",")
        assert set(exposed) == {"task-id", "task-status", "etag", "location"}
        assert reply.headers["vary"] == "origin"
    assert agent.ask("OPTIONS", "/api/run", headers={**asked, "origin": "https://c.example"}).status == 403


def test_a_star_is_for_everybody(world):
    agent = world.agent(env={"ALLOW_ORIGINS": "*"})
    assert agent.get("/queue", **{"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status == 200
    reply = agent.get("/api/tasks", origin="https://whoever.example")
    assert reply.status == 200 and reply.headers["access-control-allow-origin"] == "*"


def test_on_the_platform_without_a_key_nobody_lists_or_cancels(world):
    agent = world.agent(env={"FC_INSTANCE_ID": "c-1"})
    agent.run(image_prompt(1), "t")
    for reply in (agent.get("/api/tasks"), agent.ask("DELETE", "/api/tasks/t")):
        assert (reply.status, reply.code) == (403, "key_not_set")
    assert agent.record("t").status == 200
