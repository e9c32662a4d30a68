"""How outputs are asked for before a task is told to have succeeded: by GET of the beginning where somebody
waits for the result, which for a small one is all of it; by HEAD where nobody does."""

import base64

import pytest

from world import image_prompt, node, until

LOOK = {"at": "http", "route": "GET /view", "ranged": True}
SMALL, LARGE = 16 * 1024, 16 * 1024 + 1


def file_prompt(size, name="f"):
    return {"1": node("TestBigImage", bytes=size, filename_prefix=name)}


def result(reply, node_id="1"):
    assert reply.status == 200, reply
    return [base64.b64decode(text) for text in reply.json[node_id]["results"]]


def views(agent):
    """How often: HEAD, GET of a part, GET of all."""
    said = agent.comfy.state()["requests"]
    parts = said.get("part of /view", 0)
    return said.get("HEAD /view", 0), parts, said.get("GET /view", 0) - parts


@pytest.mark.parametrize("size, asked", [(1, (0, 1, 0)), (SMALL, (0, 1, 0)), (LARGE, (0, 1, 1)), (10 * LARGE, (0, 1, 1))])
def test_a_small_output_is_asked_for_once(both, size, asked):
    agent = both.agent()
    reply = agent.run(file_prompt(size), "t")
    (content,) = result(reply)
    assert len(content) == size
    assert views(agent) == asked
    (output,) = agent.record("t").json["outputs"]
    assert output["size"] == size and output["media_type"] == "image/png"
    assert agent.get(output["url"]).body == content
    assert result(agent.run(file_prompt(size), "t")) == [content], "who asks later has it, too"


def test_where_nobody_waits_nothing_is_fetched(world):
    agent = world.agent()
    assert agent.run(image_prompt(), "t", headers={"X-Fc-Invocation-Type": "Async"}).status == 202
    until("its end", lambda: agent.record("t").json["status"] == "succeeded")
    assert views(agent) == (1, 0, 0)
    assert len(result(agent.run(image_prompt(), "t"), "2")[0]) > 0


def test_an_empty_output_is_an_output(world):
    """There are no first bytes of it: ComfyUI's HTTP server refuses the range."""
    agent = world.agent()
    assert result(agent.run(file_prompt(0), "t")) == [b""]
    assert views(agent)[:2] == (1, 1)
    assert agent.record("t").json["outputs"][0]["size"] == 0


def test_many_outputs_come_in_their_order(world):
    agent = world.agent()
    sizes = {"1": 5, "2": LARGE, "3": 6, "4": SMALL, "5": 7, "6": 2 * LARGE}  # the first four are kept if they are small
    prompt = {n: node("TestBigImage", bytes=size, filename_prefix="x") for n, size in sizes.items()}
    reply = agent.run(prompt, "t")
    assert views(agent) == (2, 4, 3)
    outputs = {output["node_id"]: output for output in agent.record("t").json["outputs"]}
    for n, size in sizes.items():
        (content,) = result(reply, n)
        assert len(content) == size == outputs[n]["size"]
        assert content == agent.get(outputs[n]["url"]).body


ODD = [
    {"do": "answer", "status": 200, "body": "x" * LARGE},  # ranges are not known there
    {"do": "answer", "status": 200, "body": "x", "chunked": True},
    {"do": "answer", "status": 206, "body": "part"},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 0-4/100"}},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 0-3/3"}},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 0-3/*"}},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 1-4/100"}},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "pages 0-3/100"}},
    {"do": "answer", "status": 206, "body": "part", "headers": {"content-range": "bytes 0-3/99999999999999999999"}},
    {"do": "answer", "status": 416, "body": ""},
]


def test_who_knows_no_ranges_is_asked_otherwise(world):
    agent = world.agent()
    for n, rule in enumerate(ODD):
        agent.comfy.control({**LOOK, **rule})
        assert len(result(agent.run(file_prompt(LARGE, f"f{n}")))[0]) == LARGE, rule
        assert views(agent) == (n + 1, n + 1, n + 1), rule


def test_a_look_that_is_cut_is_repeated(world):
    agent = world.agent()
    agent.comfy.control({**LOOK, "do": "truncate", "times": 2, "skip": 1})
    reply = agent.run({**file_prompt(1000), "2": node("TestBigImage", bytes=2000, filename_prefix="g")})
    assert [len(result(reply, n)[0]) for n in ("1", "2")] == [1000, 2000]
