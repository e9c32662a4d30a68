"""What an operator sees: metrics, logs as JSON, the description of the API."""

import json
import re
import time

from world import ROOT, image_prompt, node

SAMPLE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (-?[0-9.e+-]+|\+Inf)$')


def metrics(agent):
    reply = agent.get("/metrics")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {}
    for line in reply.body.decode().splitlines():
        if line.startswith("#"):
            continue
        assert SAMPLE.match(line), line
        name, value = line.rsplit(" ", 1)
        values[name.removeprefix("comfy_agent_")] = float(value)
    return values


def test_metrics_count_what_happened(world):
    agent = world.agent()
    before = metrics(agent)
    for n in range(3):
        agent.run(image_prompt(n), f"t{n}")
    agent.run({"1": node("TestRaise", message="no", kind="RuntimeError")})
    after = metrics(agent)
    assert after['tasks_total{end="succeeded"}'] == 3
    assert after['tasks_total{end="failed"}'] == 1
    assert after["task_run_seconds_count"] == after['task_run_seconds_bucket{le="+Inf"}'] == 4
    assert after['comfyui_state{state="ready"}'] == 1 and after["comfyui_open"] == 1
    assert after["store_up"] == 1 and after["store_documents_written_total"] >= 5 * 3
    assert after["http_requests_total"] > before["http_requests_total"]
    assert after["loop_turn_seconds_count"] > before["loop_turn_seconds_count"]
    buckets = [value for name, value in after.items() if name.startswith("loop_turn_seconds_bucket")]
    assert buckets == sorted(buckets)


def test_a_turn_of_the_loop_is_what_it_worked_not_what_it_slept(world):
    agent = world.agent()
    before = metrics(agent)
    time.sleep(3)
    after = metrics(agent)
    assert after["loop_turn_seconds_count"] > before["loop_turn_seconds_count"]
    assert after["loop_turn_seconds_sum"] - before["loop_turn_seconds_sum"] < 1


def test_a_short_run_with_an_id_costs_five_documents_in_two_operations(world):
    agent = world.agent()
    agent.run(image_prompt(0), "warm")
    before = metrics(agent)
    agent.run(image_prompt(1), "t")
    after = metrics(agent)
    assert after["store_documents_written_total"] - before["store_documents_written_total"] == 5
    assert after["store_operations_total"] - before["store_operations_total"] == 2


def test_log_lines_can_be_json(world):
    agent = world.agent(env={"LOG_FORMAT": "json", "LOG_LEVEL": "debug"})
    agent.run(image_prompt(1), "t")
    agent.stop()
    lines = [json.loads(line) for line in agent.text().splitlines()]
    assert all({"time", "level", "module", "message"} <= set(line) for line in lines)
    (end,) = [line for line in lines if line["message"].startswith("succeeded")]
    assert end["task"] == "t" and end["prompt"]
    assert any(line["module"] == "comfyui" for line in lines)


def test_the_description_names_every_route_and_nothing_else(world):
    agent = world.agent()
    described = agent.get("/api/openapi.json").json
    source = (ROOT / "src" / "api" / "router.c").read_text()
    routes = {(method, path) for method, path in re.findall(r'\{"([A-Z]+)", "(/[^"]*)", api_', source)}
    named = {(method.upper(), path) for path, about in described["paths"].items()
             for method in about if method in ("get", "post", "put", "delete")}
    assert named == routes
    text = json.dumps(described)
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        place = described
        for step in reference.split("/"):
            place = place[step]
