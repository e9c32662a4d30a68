"""Tablestore's keys: a function's role brings them with its requests, and nobody else can."""

import pytest

from stores import Tablestore
from world import ask, image_prompt, until

KEYS = {"id": "STS.NUexample", "secret": "s3cr+t/of+the+role", "token": "t0ken+of+the/role="}


def brought(**change):
    keys = {**KEYS, **change}
    return {"X-Fc-Access-Key-Id": keys["id"], "X-Fc-Access-Key-Secret": keys["secret"],
            "X-Fc-Security-Token": keys["token"]}


@pytest.fixture
def database(world):
    made = Tablestore(world)
    yield made
    made.close()


def unnamed(url):
    """Without the keys in it."""
    return "ots://" + url.partition("@")[2]


def takes(database, id, secret, token=""):
    assert ask(database.port, "POST", "/~credentials", f"{id} {secret} {token}").status == 200


def test_a_functions_role_brings_its_keys_with_each_request(world, database):
    takes(database, **KEYS)
    world.store_url = unnamed(database.url)
    agent = world.agent(env={"PLATFORM": "fc", "LOG_LEVEL": "debug"})
    assert agent.get("/api/status?id=t").status == 503, "there are no keys yet"
    assert agent.run(image_prompt(1), "t", headers=brought()).status == 200
    assert database.document("t~task")["status"] == "succeeded"
    takes(database, **{**KEYS, "token": "newer"})
    assert agent.run(image_prompt(2), "u", headers=brought(token="newer")).status == 200
    assert database.document("u~task")["status"] == "succeeded"
    assert agent.run(image_prompt(3), "v").status == 200, "those of the last request are good for some time"
    until("it to be ready", agent.is_ready)
    said = [agent.get(path).body.decode() for path in ("/readyz", "/metrics", "/api/tasks/u")] + [agent.text()]
    for text in said:
        for secret in ("s3cr", "t0ken", "newer"):
            assert secret not in text, text


def test_elsewhere_nobody_can_bring_keys(world, database):
    agent = world.agent(env={
        "STORE_URL": unnamed(database.url),
        "TABLESTORE_ACCESS_KEY_ID": database.key, "TABLESTORE_ACCESS_KEY_SECRET": database.secret})
    assert agent.run(image_prompt(1), "t", headers=brought()).headers["task-stored"] is None
    assert database.document("t~task")["status"] == "succeeded"


def test_keys_of_the_url_are_not_replaced(world, database):
    world.store_url = database.url
    agent = world.agent(env={"PLATFORM": "fc"})
    assert agent.run(image_prompt(1), "t", headers=brought()).status == 200
    assert database.document("t~task")["status"] == "succeeded"

