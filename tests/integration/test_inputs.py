"""Inputs that are files: addresses, data: URIs, base64. What is fetched, what never is."""

import base64
import http.server
import io
import json
import threading

import pytest
from PIL import Image

from world import later, node, until

HERE = {"FETCH_ALLOW": "127.0.0.1"}


def png(color):
    out = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(out, "PNG")
    return out.getvalue()


class Site(http.server.ThreadingHTTPServer):
    """Serves `files`: path → (status, headers, body). Counts what was asked for."""

    def __init__(self):
        site = self
        self.files = {}
        self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append(self.path)
                status, headers, body = site.files.get(self.path, (404, {}, b"no"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def site():
    made = Site()
    yield made
    made.shutdown()
    made.server_close()


def load(image, class_type="LoadImage", **more):
    return {"1": node(class_type, image=image, **more),
            "2": node("SaveImage", images=["1", 0], filename_prefix="in")}


def uploads(agent):
    return agent.comfy.state()["uploads"]


def test_a_picture_comes_by_address_data_uri_or_base64(both, site):
    agent = both.agent(env=HERE)
    site.files["/a.png"] = (200, {"content-type": "image/png"}, png("red"))
    text = base64.b64encode(png("blue")).decode()
    for image in (site.url + "/a.png", "data:image/png;base64," + base64.b64encode(png("green")).decode(),
                  text, text.rstrip("=")):
        reply = agent.run(load(image))
        assert reply.status == 200 and reply.json["2"]["results"], reply
    names = [upload["name"] for upload in uploads(agent)]
    assert len(names) == 3, "the same content is uploaded once"
    assert all(len(name) == 44 and name.endswith(".png") for name in names)


def test_only_the_bytes_of_the_input_change(world, site):
    agent = world.agent(env=HERE)
    site.files["/a.png"] = (200, {}, png("red"))
    sent = ('{ "2" :{"class_type":"SaveImage","inputs":{"images":["1",0],"filename_prefix":"\\u0069n" }},\t'
            '"1":{"inputs":{"image" : "%s/a.png"  },"class_type":"LoadImage"}}' % site.url)
    assert agent.run(sent).status == 200
    (upload,) = uploads(agent)
    want = sent.replace(site.url + "/a.png", upload["name"])
    assert want in agent.comfy.body(0).decode()


def test_the_prompt_is_told_as_it_came_whenever_it_is_asked_for(world):
    agents = [world.agent(f"agent{n}") for n in (1, 2)]
    image = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    agents[0].comfy.control({"at": "node", "do": "hold", "class": "LoadImage"})
    run = later(agents[0].run, load(image), "t")
    agents[0].comfy.await_hold("node")

    def told():
        return {agent.get("/api/tasks/t/prompt").json["1"]["inputs"]["image"] for agent in agents}

    assert told() == {image}
    agents[0].comfy.release()
    assert run.result().status == 200
    assert told() == {image}


def test_names_and_texts_are_left_alone(world, site):
    agent = world.agent(env=HERE)
    (world.input / "cat.png").write_bytes(png("red"))
    assert agent.run(load("cat.png")).status == 200
    text = {"1": node("TestText", text=site.url + "/a.png"), "2": node("TestText", text="A" * 200)}
    reply = agent.run(text)
    assert reply.status == 200
    assert reply.json["1"]["text"] == [site.url + "/a.png"]
    assert site.asked == [] and uploads(agent) == []


def test_a_mask_is_fetched_too(world, site):
    agent = world.agent(env=HERE)
    site.files["/mask.png"] = (200, {}, png("green"))
    prompt = {**load("data:image/png;base64," + base64.b64encode(png("red")).decode()),
              "3": node("LoadImageMask", image=site.url + "/mask.png", channel="red")}
    assert agent.run(prompt).status == 200
    sent = json.loads(agent.comfy.body(len(agent.comfy.prompts) - 1))["prompt"]
    assert sent["3"]["inputs"]["image"].endswith(".png") and "/" not in sent["3"]["inputs"]["image"]
    assert sent["3"]["inputs"]["channel"] == "red" and site.asked == ["/mask.png"] and len(uploads(agent)) == 2


def test_what_is_wrong_names_the_node_and_the_input(world, site):
    agent = world.agent(env={**HERE, "INPUT_MAX_BYTES": "5000"})
    site.files["/text"] = (200, {}, b"<html>")
    site.files["/large.png"] = (200, {}, png("red") + bytes(10_000))
    for image in (site.url + "/missing.png", site.url + "/text", site.url + "/large.png",
                  "data:image/png;base64,????", "data:nonsense", "http://127.0.0.1:1/x.png",
                  "data:text/plain;base64,aGVsbG8="):
        reply = agent.run(load(image))
        assert reply.status == 400, (image, reply)
        error = reply.json["error"]
        assert (error["code"], error["node_id"], error["input"]) == ("bad_input", "1", "image")
        assert error["class_type"] == "LoadImage"
    assert agent.comfy.prompts == []


REFUSED = """
http://127.0.0.1/ http://127.0.0.1:9000/x http://127.1/ http://127.0.1/ http://2130706433/ http://0x7f000001/
http://0x7f.0.0.1/ http://0177.0.0.1/ http://017700000001/ http://127.0.0.1./ http://localhost/ http://LOCALHOST/
http://localhost./ http://0.0.0.0/ http://0/ http://10.0.0.1/ http://172.16.0.1/ http://172.31.255.255/
http://192.168.1.1/ http://169.254.169.254/latest/meta-data/ http://100.100.100.200/latest/ http://100.64.0.1/
http://198.18.0.1/ http://224.0.0.1/ http://255.255.255.255/ http://[::1]/ http://[::]/ http://[::ffff:127.0.0.1]/
http://[::ffff:7f00:1]/ http://[::127.0.0.1]/ http://[64:ff9b::7f00:1]/ http://[2002:7f00:1::]/ http://[fe80::1]/
http://[fc00::1]/ http://[fd00:ec2::254]/ http://[ff02::1]/ http://[::ffff:169.254.169.254]/ http://user@127.0.0.1/
http://user:pass@example.com/a.png http://example.com@127.0.0.1/ http://127.0.0.1%2f@example.com/ http:///127.0.0.1/
http:127.0.0.1/ http://127。0。0。1/ http://①②⑦.⓪.⓪.①/ http://%31%32%37.0.0.1/ https://127.0.0.1/ https://[::1]/
http://127.0.0.1\\@example.com/ http://0x7f000001:80/ http://[::1%25lo]/ http://169.254.43518/
""".split()


def test_addresses_inside_are_refused_in_any_spelling(world):
    assert len(REFUSED) >= 40
    agent = world.agent()
    inside = 0
    for url in REFUSED:
        reply = agent.run(load(url))
        assert (reply.status, reply.code) in ((403, "address_refused"), (400, "bad_input")), (url, reply)
        inside += reply.status == 403
        assert reply.json["error"]["node_id"] == "1", (url, reply)
    assert inside >= 20, "what is spelled oddly is no address at all"
    assert agent.comfy.prompts == [] and uploads(agent) == []


def test_an_address_that_is_refused_is_403(world):
    agent = world.agent()
    for number, url in enumerate(("http://169.254.169.254/x", "http://localhost/", "https://[::1]/", "http://10.0.0.1/")):
        reply = agent.run(load(url), f"t{number}")
        assert (reply.status, reply.json["message"]) == (403, "ForbiddenError"), (url, reply)
        error = reply.json["error"]
        assert (error["code"], error["node_id"], error["input"]) == ("address_refused", "1", "image")
        assert agent.record(f"t{number}").json["error"] == error
        assert agent.run(load(url), f"t{number}").status == 403
    later = agent.run(load("http://169.254.169.254/x"), "later", {"prefer": "respond-async"})
    assert later.status == 202
    until("its end", lambda: agent.record("later").json["status"] == "failed")
    assert agent.record("later").json["error"]["code"] == "address_refused"


def test_metadata_stays_closed_whatever_is_allowed(world):
    agent = world.agent(env={"FETCH_ALLOW": "0.0.0.0/0,::/0"})
    for url in ("http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/latest/",
                "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"):
        assert agent.run(load(url)).status == 403


def test_a_redirect_is_checked_like_a_first_address(world, site):
    agent = world.agent(env=HERE)
    site.files["/good.png"] = (200, {}, png("red"))
    for name, target in (("/ok", "/good.png"), ("/meta", "http://169.254.169.254/x"),
                         ("/inside", "http://127.0.0.2/x"), ("/file", "file:///etc/passwd"),
                         ("/loop", "/loop"), ("/user", "http://a:b@127.0.0.1/x"), ("/2", "/1"), ("/1", "/ok"),
                         ("/4", "/3"), ("/3", "/2")):
        site.files[name] = (302, {"location": target}, b"")
    assert agent.run(load(site.url + "/ok")).status == 200
    assert agent.run(load(site.url + "/2")).status == 200
    for name in ("/meta", "/inside", "/file", "/loop", "/user", "/4"):
        reply = agent.run(load(site.url + name))
        assert reply.status == (403 if name in ("/meta", "/inside") else 400), (name, reply)


def test_what_was_tidied_away_is_uploaded_again(both):
    agent = both.agent()
    image = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    assert agent.run(load(image)).status == 200
    for file in both.input.iterdir():
        file.unlink()
    assert agent.run(load(image, upload="image")).status == 200
    assert len(uploads(agent)) == 2


def test_what_comfyui_forgot_is_uploaded_again(world):
    agent = world.agent()
    image = "data:image/png;base64," + base64.b64encode(png("red")).decode()
    assert agent.run(load(image)).status == 200
    assert len(uploads(agent)) == 1
    import os
    import signal

    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    until("it to come back", lambda: agent.get("/readyz").status != 200)
    agent.wait_ready()
    assert agent.run(load(image, upload="image")).status in (200, 422)
    assert len(uploads(agent)) == 1
