"""ComfyUI's traps: what its protocol does that a reasonable reader would not expect. Each is numbered as in
the list that the program was written against; both ages of ComfyUI set most of them."""

import base64
import contextlib
import itertools
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from world import ask, image_prompt, later, node, running, sleep_prompt, steps_prompt, until

SEED = 18446744073709551615


def images(reply):
    """The node map's pictures must be there, whole."""
    assert reply.status == 200, reply
    pictures = [base64.b64decode(text, validate=True)
                for entry in reply.json.values() for text in entry.get("results", [])]
    assert pictures and all(picture.startswith(b"\x89PNG") for picture in pictures), reply
    return pictures


fresh = itertools.count(1)


def blue(name="x"):
    """A picture and a node with steps, never cached: every kind of message is sent."""
    n = next(fresh)
    return {**image_prompt(n, prefix=name), "3": node("TestSteps", n=3, ms=1, seed=n)}


# --- 1, 2: what JSON libraries cannot read --------------------------------------------------------


def test_01_seeds_keep_their_digits(both):
    """1. Seeds go to 2^64-1: digit for digit to ComfyUI, and nothing chokes on the history and the queue
    that echo them, not even while the prompt runs."""
    agent = both.agent()
    sent = '{"1": {"class_type": "TestSteps", "inputs": {"seed":%d, "n": 2, "ms": 1}}}' % SEED
    agent.comfy.control({"at": "node", "do": "hold"})
    waiting = later(agent.run, sent, "t")
    agent.comfy.await_hold("node")
    agent.comfy.control({"at": "now", "do": "ws_drop"})  # so that history and queue are asked
    until("the queue to be read", lambda: agent.comfy.state()["requests"].get("GET /queue"))
    assert running(agent, "t")
    agent.comfy.release()
    assert waiting.result().status == 200
    assert f'"seed":{SEED},'.encode() in agent.comfy.body(0)
    assert f'"seed":{SEED},'.encode() in agent.get("/api/tasks/t/prompt").body
    (prompt,) = agent.comfy.prompts
    history = ask(agent.comfy.port, "GET", f"/history/{prompt['prompt_id']}")
    assert str(SEED).encode() in history.body


def test_02_outputs_that_are_not_json(both):
    """2. NaN, Infinity, lone surrogates, \\u0000 and numbers beyond any type in outputs end nothing; what we
    answer is JSON all the same."""
    agent = both.agent()
    assert agent.run({"1": node("TestNaN", seed=1)}, "nan").status == 200
    reply = agent.run({"1": node("TestSurrogate")}, "surrogate")
    assert reply.status == 200
    assert reply.json["1"]["text"] == ["\ud800", "\udfff\ud800", "a\0b"]
    for name in ("nan", "surrogate"):
        record = agent.record(name).json
        assert (record["status"], record["attempt"]) == ("succeeded", 1)
        assert both.document(f"{name}~task") == record
    assert len(agent.comfy.prompts) == 2


JUNK = ["", "{not json", "[]", "null", "7", '"text"', "{}", '{"type": 1}', '{"type": "executing"}',
        '{"type": "executing", "data": []}', '{"type": "executing", "data": {"node": {}}}',
        '{"type": "execution_cached", "data": {"nodes": 1}}', '{"type": "status", "data": null}',
        '{"type": "progress", "data": {"value": "x", "max": null}}', '{"type": "unheard-of", "data": 1}',
        '{"type": "executed", "data": {"node": "2", "output": [1]}}', '{"type": "execution_error", "data": 1}',
        '{"type": "progress", "data": {"value": NaN, "max": Infinity, "node": null}}',
        "[" * 5000, '{"type": "\\ud800", "data": {}}', '{"type": "status", "data": {"sid": "another"}}']


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_02_frames_of_junk(both, kind):
    """2. A frame that cannot be read, or of a type that nobody knows, before each message: the run goes on,
    over the same socket."""
    agent = both.agent()
    for number, junk in enumerate(JUNK if kind == "text" else ["", "00", "00000001", "ffffffff" * 4, "7b7d",
                                                               "00000004ffffffff7b7d"]):
        rule = {"text": junk} if kind == "text" else {"hex": junk}
        agent.comfy.control({"at": "ws", "do": kind, "times": 0, **rule})
        images(agent.run(blue(f"j{number}"), f"t{number}"))
        agent.comfy.reset()
    assert agent.comfy.state()["ws"]["opened"] == 1


def test_02_messages_cut_in_the_middle(both):
    """2. Garbled frames of every type: history tells what they would have said."""
    agent = both.agent()
    kinds = ["execution_start", "execution_cached", "executing", "progress", "executed", "execution_success"]
    for kind in kinds:
        agent.comfy.control({"at": "ws", "type": kind, "do": "garble", "times": 0})
        images(agent.run(blue(kind), kind))
        assert agent.record(kind).json["attempt"] == 1
        agent.comfy.reset()
    agent.comfy.control({"at": "ws", "type": "execution_error", "do": "garble"})
    reply = agent.run({"1": node("TestRaise", message="no", kind="RuntimeError")}, "error")
    assert (reply.status, reply.code, reply.json["error"]["node_id"]) == (500, "node_error", "1")
    assert agent.comfy.state()["ws"]["opened"] == 1


def test_02_a_custom_nodes_own_messages(both):
    """2. Unknown types, binary frames of unknown type and of no length."""
    agent = both.agent()
    reply = agent.run({"1": node("TestUnknownFrames", text="hello")}, "t")
    assert reply.status == 200 and reply.json["1"]["text"] == ["hello"]
    assert agent.comfy.state()["ws"]["opened"] == 1


def test_02_a_message_too_large_to_keep(both):
    """2. It is read past, and may have told of an output."""
    agent = both.agent()
    agent.run(blue("first"), "first")
    (picture,) = agent.record("first").json["outputs"]
    told = {"images": [{key: picture[key] for key in ("filename", "subfolder", "type")}], "pad": ["x" * (9 << 20)]}
    prompt = {"1": node("TestOutputs", json=json.dumps(told))}
    assert len(images(agent.run(prompt, "t"))) == 1
    agent.comfy.control({"at": "success", "do": "lose_entry"})
    prompt["2"] = node("TestText", text="another prompt")
    reply = agent.run(prompt, "gap")
    assert (reply.status, reply.code) == (502, "prompt_lost"), reply
    assert agent.comfy.state()["ws"]["opened"] == 1


# --- 3, 4, 5: begin and end ------------------------------------------------------------------------


def test_03_the_client_id_is_always_ours(both):
    """3. Without client_id there is no end message, and everybody hears the progress: it is always set, to
    a socket that is open, whatever the caller's body says."""
    agent = both.agent()
    for n, extra in enumerate(({}, {"client_id": "foreign"}, {"extra_data": {"client_id": "foreign"}},
                               {"client_id": None, "extra_data": {"extra_pnginfo": {}}})):
        images(agent.run({"prompt": image_prompt(n), **extra}))
    state = agent.comfy.state()
    (sid,) = state["ws"]["sids"]
    assert [prompt["client_id"] for prompt in state["prompts"]] == [sid] * 4


def test_04_over_before_the_answer_is_read(both):
    """4. A whole run, the cached one too, can be over on the socket before the answer to POST /prompt has
    been read."""
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "finish", "times": 0})
    first = agent.run(image_prompt(1), "first")
    cached = agent.run(image_prompt(1), "cached")
    assert images(first) == images(cached)
    record = agent.record("cached").json
    assert (record["status"], record["attempt"]) == ("succeeded", 1)
    raised = agent.run({"1": node("TestRaise", message="no", kind="RuntimeError")}, "raised")
    assert (raised.status, raised.code) == (500, "node_error")
    assert len(agent.comfy.prompts) == 3


def test_04_many_over_before_their_answers(both):
    """4. The same for several at once: each gets its own end."""
    agent = both.agent(env={"MAX_CONCURRENCY": "4"})
    agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "finish", "times": 0})
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda n: agent.run(image_prompt(n, prefix=f"own{n}"), f"t{n}"), range(16)))
    for n, reply in enumerate(replies):
        images(reply)
        assert reply.json["2"]["images"][0]["filename"].startswith(f"own{n}_")
    assert len(agent.comfy.prompts) == 16


def test_05_a_blocked_branch_is_no_end(both):
    """5. execution_error may be a blocked branch: the prompt goes on and ends in success."""
    agent = both.agent()
    prompt = {**image_prompt(1), "3": node("LabBlock", image=["1", 0], message="not this time"),
              "4": node("PreviewImage", images=["3", 0]), "5": node("TestSteps", n=3, ms=1, seed=0)}
    agent.comfy.control({"at": "ws", "type": "execution_error", "do": "hold", "name": "sent"})
    agent.comfy.release("sent")
    reply = agent.run(prompt, "t")
    images(reply)
    assert {"at": "ws", "do": "hold"} in agent.comfy.state()["fired"], "it was blocked"
    assert agent.record("t").json["status"] == "succeeded"


def test_05_success_on_the_socket_is_not_yet_the_end(both):
    """5. execution_success comes before the history has it."""
    agent = both.agent()
    agent.comfy.control({"at": "success", "do": "hold"})
    waiting = later(agent.run, image_prompt(1), "t")
    agent.comfy.await_hold("success")
    until("the last node to be done", lambda: agent.record("t").json["progress"] == 1)
    time.sleep(0.1)  # a chance to end too early
    assert agent.record("t").json["status"] == "running"
    agent.comfy.release()
    images(waiting.result())


def test_05_other_peoples_messages_are_no_end(both):
    """5. queue_remaining counts others' prompts too; executing null may be another prompt's."""
    agent = both.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, steps_prompt(3, 1), "t")
    agent.comfy.await_hold("node")
    for message in ({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}},
                    {"type": "executing", "data": {"node": None, "prompt_id": "another"}},
                    {"type": "executing", "data": {"node": None}},
                    {"type": "execution_success", "data": {"prompt_id": "another"}},
                    {"type": "execution_error", "data": {"prompt_id": "another"}},
                    {"type": "execution_interrupted", "data": {"prompt_id": "another"}},
                    {"type": "execution_success", "data": {}}):
        agent.comfy.control({"at": "now", "do": "ws_text", "text": json.dumps(message)})
    until("the doubt to be looked into", lambda: agent.comfy.state()["requests"].get("GET /queue"))
    assert running(agent, "t")
    agent.comfy.release()
    assert waiting.result().status == 200
    assert agent.record("t").json["attempt"] == 1


# --- 6, 10: the socket -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "close"])
def test_06_the_socket_is_lost_at_each_moment(both, how):
    """6. After any gap history and queue decide. 10. And the next socket has a fresh id."""
    agent = both.agent()
    moments = ["status", "execution_start", "execution_cached", "executing", "progress", "executed",
               "execution_success"]
    seen = set()
    for kind in moments:
        for skip in (0, 1) if kind in ("executing", "executed") else (0,):
            seen.update(agent.comfy.state()["ws"]["sids"])
            agent.comfy.control({"at": "ws", "type": kind, "do": how, "skip": skip})
            name = f"{kind}{skip}"
            opened = agent.comfy.state()["ws"]["opened"]
            images(agent.run(blue(name), name))
            record = agent.record(name).json
            assert (record["status"], record["attempt"]) == ("succeeded", 1), record
            until("another socket", lambda: agent.comfy.state()["ws"]["opened"] > opened and agent.is_ready())
    state = agent.comfy.state()
    assert len(state["prompts"]) == 9
    seen.update(state["ws"]["sids"])
    assert len(seen) == state["ws"]["opened"] == 10, "no id was used twice"


def test_06_lost_messages(both):
    """6. Any message may be missing: progress, names of outputs, even whether it is cached."""
    agent = both.agent()
    for kind in ("execution_start", "execution_cached", "progress", "executed", "execution_success"):
        agent.comfy.control({"at": "ws", "type": kind, "do": "lose", "times": 0})
        reply = agent.run(blue(kind), kind)
        images(reply)
        assert all(entry["value"] == entry["max"] > 0 for entry in reply.json.values()), reply
        agent.comfy.reset()


def test_06_a_message_twice(both):
    """6. One that names outputs comes again: they are not there twice."""
    agent = both.agent()
    agent.comfy.control({"at": "ws", "type": "executed", "do": "repeat", "times": 0})
    assert len(images(agent.run(image_prompt(1), "t"))) == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_06_one_lost_name_of_an_output(both, lost):
    """6. Nothing but the name of one of two outputs is missing."""
    agent = both.agent()
    agent.comfy.control({"at": "ws", "type": "executed", "do": "lose", "skip": lost})
    prompt = blue()
    prompt.update({"4": node("EmptyImage", width=8, height=8, batch_size=1, color=next(fresh)),
                   "5": node("SaveImage", images=["4", 0], filename_prefix="another")})
    assert len(images(agent.run(prompt, "t"))) == 2


def test_06_without_any_doubt_the_history_is_not_asked(both):
    """6. What the socket told in one piece is the end. What was not run, as far as is known, was perhaps not
    told of either."""
    agent = both.agent()

    def asked():
        return agent.comfy.state()["requests"].get("GET /history/*", 0)

    images(agent.run(image_prompt(1), "first"))
    assert asked() == 0
    images(agent.run(image_prompt(1), "cached"))
    assert asked() == 1


def test_06_who_never_says_anything_is_not_asked_about_again(both):
    """6. The history has shown that a class of nodes has no outputs. Another ComfyUI is asked anew."""
    agent = both.agent()

    def run(color, silent="LabSilentOutput"):
        prompt = {**image_prompt(color), "8": node(silent, image=["1", 0])}
        images(agent.run(prompt))
        return agent.comfy.state()["requests"].get("GET /history/*", 0)

    assert [run(n) for n in range(5)] == [1, 2, 3, 3, 3]
    agent.comfy.control({"at": "ws", "type": "executed", "do": "lose"})
    assert run(5) == 4, "who does speak is missed"
    links = agent.comfy.state()["requests"]["GET /ws"]
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    until("another link", lambda: agent.comfy.state()["requests"]["GET /ws"] > links)
    agent.wait_ready()
    assert [run(n) for n in range(6, 10)] == [5, 6, 7, 7]


def test_06_what_was_not_heard_says_nothing_of_a_class(both):
    """6. A run with a gap in its news is not what a class is known by."""
    agent = both.agent()
    agent.comfy.control({"at": "ws", "type": "executed", "do": "garble", "times": 3})
    for n in range(4):
        images(agent.run({**image_prompt(n), "8": node("LabSilentOutput", image=["1", 0])}))
        assert agent.comfy.state()["requests"]["GET /history/*"] == n + 1


def blocked(n):
    """A picture that is not saved: its node executes and says nothing."""
    prompt = {**image_prompt(n, prefix="b"), "3": node("LabBlock", image=["1", 0], message="")}
    prompt["2"]["inputs"]["images"] = ["3", 0]
    return prompt


@pytest.mark.parametrize("lost", [0, 1])
def test_06_who_was_silent_and_speaks_is_not_silent_beside(both, lost):
    """6. A class seemed to be silent. Of two of its nodes one is heard in a run, and of the other the message is
    lost: the first tells that they do speak."""
    agent = both.agent()
    for n in range(1, 4):
        assert agent.run(blocked(n)).status == 200
    agent.comfy.control({"at": "ws", "type": "executed", "do": "lose", "skip": lost})
    prompt = {**image_prompt(7), "4": node("EmptyImage", width=8, height=8, batch_size=1, color=8),
              "5": node("SaveImage", images=["4", 0], filename_prefix="another")}
    assert len(images(agent.run(prompt))) == 2


def test_06_a_blocked_branch_makes_nobody_silent(both):
    """6. ComfyUI says of a blocked output that it executes, and nothing more. Its class does speak."""
    agent = both.agent()
    images(agent.run(image_prompt(1)))
    for n in range(2, 6):
        agent.run(blocked(n))
    agent.comfy.control({"at": "ws", "type": "executed", "do": "lose"})
    images(agent.run(image_prompt(7)))


def test_06_a_deaf_socket(both):
    """6. A socket may look healthy and be deaf: a slow look into the history finds the end. The run that
    raised is told from the one that succeeded."""
    agent = both.agent(env={"MAX_CONCURRENCY": "2"})
    agent.comfy.control({"at": "ws", "type": "execution_start", "do": "deaf"})
    raised = later(agent.run, {"1": node("TestRaise", message="no", kind="RuntimeError")}, "raised")
    ended = agent.run(blue(), "t")
    images(ended)
    assert (raised.result().status, raised.result().code) == (500, "node_error")
    assert agent.comfy.state()["ws"]["opened"] == 1


def test_06_no_socket_at_all_while_it_runs(both):
    """6. The socket is lost and cannot be opened again: the end is found by looking."""
    agent = both.agent()
    agent.comfy.control({"at": "http", "route": "GET /ws", "do": "answer", "status": 503, "times": 0},
                        {"at": "ws", "type": "execution_start", "do": "drop"})
    images(agent.run(blue(), "t"))
    agent.comfy.reset()
    agent.wait_ready()
    images(agent.run(image_prompt(5)))


# --- 7: ends without a message ---------------------------------------------------------------------


def test_07_deleted_and_cleared_by_somebody_else(both):
    """7. Deleted and cleared prompts end silently; the one that runs is left alone."""
    agent = both.agent(env={"MAX_CONCURRENCY": "3"})
    comfy = agent.comfy
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    first = later(agent.run, sleep_prompt(1, 0), "t0")
    comfy.await_hold("node")
    others = []
    for n in (1, 2):
        others.append(later(agent.run, sleep_prompt(1, n), f"t{n}"))
        until("it to wait", lambda: len(comfy.state()["queue"]["pending"]) == n)
    one = comfy.state()["queue"]["pending"][0]
    ask(comfy.port, "POST", "/queue", json.dumps({"delete": [one]}))
    ask(comfy.port, "POST", "/queue", json.dumps({"clear": True}))
    for other in others:
        reply = other.result()
        assert (reply.status, reply.code) == (502, "prompt_lost"), reply
    assert running(agent, "t0")
    comfy.release()
    assert first.result().status == 200
    assert both.document("t1~task")["error"]["code"] == "prompt_lost"


def test_07_interrupted_by_somebody_else(both):
    """7. An interrupt that is not ours ends the prompt; it is told as such."""
    agent = both.agent()
    waiting = later(agent.run, steps_prompt(5000, 5), "t")
    until("the task to run", lambda: agent.comfy.state()["started"])
    ask(agent.comfy.port, "POST", "/interrupt")
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "interrupted"), reply
    record = agent.record("t").json
    assert (record["status"], record["attempt"]) == ("failed", 1)


# --- 8, 9: outputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [False, True])
def test_08_dropped_outputs_are_a_refusal(both, over):
    """8. A 200 from /prompt can still drop outputs: 422, also when the rest has run already."""
    agent = both.agent()
    prompt = {**image_prompt(1), "3": node("SaveImage", filename_prefix="dropped"),
              "4": node("TestSteps", n=5 if over else 5000, ms=5, seed=0)}
    if over:
        agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "finish"})
    reply = agent.run(prompt, "t")
    assert (reply.status, reply.code) == (422, "outputs_dropped"), reply
    errors = reply.json["error"]["node_errors"]
    assert list(errors) == ["3"] and errors["3"]["errors"][0]["type"] == "required_input_missing"
    assert both.document("t~task")["status"] == "failed"
    assert agent.comfy.is_idle()


def test_09_cached_runs_name_old_files(both):
    """9. `executed` may repeat old file names, and comes without `executing`."""
    agent = both.agent()
    first = agent.run(image_prompt(1), "first")
    again = agent.run(image_prompt(1), "again")
    assert images(first) == images(again)
    assert first.json["2"]["images"] == again.json["2"]["images"]
    assert all(entry["value"] == entry["max"] == 1 for entry in again.json.values())


def test_09_no_executed_and_output_null(both):
    """9. A prompt can succeed with no `executed` at all; its cached run sends `output: null`."""
    agent = both.agent()
    silent = {"1": node("EmptyImage", width=16, height=16, batch_size=1, color=1),
              "2": node("LabSilentOutput", image=["1", 0])}
    for name in ("first", "cached"):
        reply = agent.run(silent, name)
        assert reply.status == 200, reply
        assert all(entry["value"] == entry["max"] == 1 and entry["images"] == [] and "results" not in entry
                   for entry in reply.json.values())
    assert agent.record("cached").json["outputs"] == []


# --- 12, 13: large and many frames -----------------------------------------------------------------


def test_12_large_frames(both):
    """12. Messages from ComfyUI have no limit: 5 MiB are read, 9 MiB are read past, and both in the middle
    of a run that goes on over the same socket."""
    agent = both.agent()
    for size in (5 << 20, 9 << 20):
        for binary in (False, True):
            agent.comfy.control({"at": "ws", "type": "executing", "do": "flood", "bytes": size, "binary": binary})
            name = f"t{size}{binary}"
            images(agent.run(blue(name), name))
    assert agent.comfy.state()["ws"]["opened"] == 1


def test_13_previews_are_drained_whoever_does_not_read(both):
    """13. One slow reader of ComfyUI's socket stalls everybody: it is drained at all times, also while a
    caller of ours does not read its answer."""
    agent = both.agent()
    body = json.dumps({"1": node("TestBigImage", bytes=16 << 20, filename_prefix="big")})
    with contextlib.closing(socket.create_connection(("127.0.0.1", agent.port))) as lazy:
        lazy.sendall(f"POST /api/run HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        assert lazy.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        reply = agent.run({"1": node("TestFlood", n=400, bytes=65536)}, "flood")
        assert (reply.status, reply.json["1"]["text"]) == (200, ["400 frames"])
    assert agent.comfy.state()["ws"]["opened"] == 1


# --- 14: shapes ------------------------------------------------------------------------------------


REFUSALS = [
    ({"error": "no prompt", "node_errors": []}, "no prompt"),
    ({"error": {"type": "no_prompt", "message": "No prompt provided", "details": "", "extra_info": {}},
      "node_errors": {}}, "No prompt provided"),
    ({"error": {"type": "x", "message": "Two\\nlines\n", "details": "", "extra_info": {}}, "node_errors": []},
     "Two\\nlines"),
    ({"error": None, "node_errors": None}, "ComfyUI refused the prompt"),
    ({"error": 7}, "ComfyUI refused the prompt"),
    ([], "ComfyUI refused the prompt"),
    ("", "ComfyUI refused the prompt"),
    ("{garbage", "ComfyUI refused the prompt"),
]


def test_14_refusals_of_any_shape(world):
    """14. `error` is a string or an object, `node_errors` an array or an object."""
    agent = world.agent()
    for body, detail in REFUSALS:
        agent.comfy.control({"at": "http", "route": "POST /prompt", "do": "answer", "status": 400, "body": body})
        reply = agent.run(image_prompt(1))
        assert (reply.status, reply.code, reply.json["error"]["detail"]) == (422, "prompt_refused", detail)


def test_14_refusals_of_both_ages(both):
    """14. The same refusal in the words of either age."""
    agent = both.agent()
    reply = agent.run({"1": node("NoSuchNode")}, "class")
    assert (reply.status, reply.code) == (422, "prompt_refused")
    reply = agent.run({"1": node("EmptyImage", width=1, height=1, batch_size=1, color=1)}, "outputs")
    assert (reply.status, reply.code) == (422, "prompt_refused")
    assert reply.json["error"]["type"] == "prompt_no_outputs"
    cycle = {"1": node("ImageInvert", image=["2", 0]), "2": node("ImageInvert", image=["1", 0]),
             "3": node("SaveImage", images=["1", 0], filename_prefix="x")}
    reply = agent.run(cycle, "cycle")
    assert (reply.status, reply.code) == (422, "prompt_refused"), reply
    assert agent.comfy.state()["started"] == []


def test_14_numbers_and_nodes_of_any_shape(both):
    """14. `value` and `max` are ints or floats, `node` may be null: then it is the node that executes."""
    agent = both.agent()
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, steps_prompt(1, 1), "t")
    agent.comfy.await_hold("node")
    (prompt_id,) = agent.comfy.state()["started"]

    def shown():
        entry = agent.get("/api/status?id=t").json["1"]
        return entry["value"], entry["max"]

    for value, most, node_id, want in ((1, 4, "1", (1, 4)), (2.0, 8.0, None, (2, 8)), (2.5, 5, "1", (2.5, 5)),
                                       (7, 5, "1", (5, 5)), (-1, 5, "1", (0, 5)), (1e300, 1e301, "1", (1e300, 1e301))):
        data = {"value": value, "max": most, "prompt_id": prompt_id, "node": node_id}
        agent.comfy.control({"at": "now", "do": "ws_text", "text": json.dumps({"type": "progress", "data": data})})
        until(f"{want} to be shown", lambda: shown() == want)
    agent.comfy.release()
    assert waiting.result().status == 200


# --- 15: the worker thread -------------------------------------------------------------------------


def test_15_what_would_kill_the_worker_is_not_forwarded(both):
    """15. A missing `inputs` object kills ComfyUI's only worker for ever, as does an `extra_data` of null."""
    agent = both.agent()
    good = image_prompt(1)
    for bad in ({"class_type": "SaveImage"}, {"class_type": "SaveImage", "inputs": None},
                {"class_type": "SaveImage", "inputs": []}, {"class_type": None, "inputs": {}}, {"inputs": {}},
                [], None, "SaveImage"):
        reply = agent.run({**good, "9": bad})
        assert (reply.status, reply.code, reply.json["error"]["node_id"]) == (400, "not_a_prompt", "9"), bad
    for extra in (None, [], "x", 1):
        reply = agent.run({"prompt": good, "extra_data": extra})
        assert (reply.status, reply.code) == (400, "bad_envelope"), extra
    assert agent.comfy.prompts == []
    images(agent.run(good))


@pytest.mark.parametrize("moment", ["node", "progress", "executed", "success", "history"])
def test_15_a_dead_worker_is_found_and_cured(both, moment):
    """15. HTTP looks fine, prompts pile up, nothing runs: only a restart helps, and the task is run again."""
    agent = both.agent()
    pid = agent.comfy.state()["pid"]
    agent.comfy.control({"at": moment, "do": "kill_worker"})
    images(agent.run(blue(), "t"))
    assert agent.comfy.state()["pid"] != pid
    record = agent.record("t").json
    # Once the history has it, the end is known in spite of it.
    assert record["attempt"] == (1 if moment == "history" and record["attempt"] == 1 else 2)


def test_15_a_prompt_that_kills_the_worker_each_time(both):
    """15. It ends, and the next one finds a ComfyUI that works."""
    agent = both.agent()
    reply = agent.run({"1": node("TestKillWorker")}, "t")
    assert (reply.status, reply.code) == (502, "comfyui_died"), reply
    assert agent.record("t").json["attempt"] == 2
    images(agent.run(image_prompt(1)))


# --- 16: old versions ------------------------------------------------------------------------------


def test_16_the_prompts_id_is_the_one_that_counts(both):
    """16. Old versions ignore `prompt_id` and choose one."""
    agent = both.agent()
    images(agent.run(image_prompt(1), "t"))
    (prompt,) = agent.comfy.prompts
    assert agent.record("t").json["prompt_id"] == prompt["prompt_id"]
    ours = json.loads(agent.comfy.body(0))["prompt_id"]
    assert (ours == prompt["prompt_id"]) == (both.age == "0.33.0")


def test_16_cancelling_never_interrupts_another_prompt(both):
    """16. Old versions interrupt whatever runs: a task is interrupted only while it is the one that runs."""
    agent = both.agent(env={"MAX_CONCURRENCY": "2"})
    comfy = agent.comfy
    comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    foreign = json.dumps({"prompt": sleep_prompt(1, 7), "client_id": "somebody"})
    assert ask(comfy.port, "POST", "/prompt", foreign).status == 200
    comfy.await_hold("node")
    (theirs,) = comfy.state()["started"]
    waiting = later(agent.run, steps_prompt(5000, 5), "t")
    until("it to wait in ComfyUI", lambda: comfy.state()["queue"]["pending"])
    assert agent.ask("DELETE", "/api/tasks/t").status in (200, 202)
    reply = waiting.result()
    assert (reply.status, reply.code) == (500, "cancelled")
    assert comfy.state()["interrupts"] == []
    comfy.release()
    until("theirs to end", lambda: comfy.state()["ended"].get(theirs))
    assert comfy.state()["ended"][theirs] == "success"
    # And the one that does run is stopped, by its name where there are names.
    waiting = later(agent.run, steps_prompt(5000, 5), "u")
    until("it to run", lambda: running(agent, "u"))
    agent.ask("DELETE", "/api/tasks/u")
    assert waiting.result().code == "cancelled"
    interrupts = until("it to be interrupted", lambda: comfy.state()["interrupts"])
    names = {interrupt["prompt_id"] for interrupt in interrupts}
    assert names == {agent.record("u").json["prompt_id"] if both.age == "0.33.0" else None}


# --- 17, 18 ----------------------------------------------------------------------------------------


def test_17_a_result_of_64_mb(world):
    """17. Results are relayed as streams: all their bytes come, in order."""
    agent = world.agent()
    reply = agent.run({"1": node("TestBigImage", bytes=64 << 20, filename_prefix="big")}, "t")
    assert reply.status == 200
    (name,) = (image["filename"] for image in reply.json["1"]["images"])
    assert base64.b64decode(reply.json["1"]["results"][0]) == (world.output / name).read_bytes()


def test_17_a_prompt_of_20_mb(both):
    """17. Prompts with pictures inside them are large: 20 MB arrive byte for byte."""
    agent = both.agent()
    prompt = json.dumps({**image_prompt(1), "9": {**node("TestText", text="hi"), "_meta": {"title": "x" * (20 << 20)}}})
    images(agent.run(prompt, "t"))
    assert prompt.encode() in agent.comfy.body(0)
    assert both.document("t~run.1")["claim"], "too large to be kept, but claimed like any other"


def test_17_a_queue_of_megabytes(both):
    """17. The queue repeats every waiting prompt in full; it is read all the same."""
    agent = both.agent(env={"MAX_CONCURRENCY": "4"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSleep"})
    title = {"_meta": {"title": "x" * (4 << 20)}}
    waiting = [later(agent.run, {"1": {**node("TestSleep", ms=1, seed=n), **title}}, f"t{n}") for n in range(4)]
    until("all to be there", lambda: len(agent.comfy.prompts) == 4)
    agent.comfy.control({"at": "now", "do": "ws_drop"})
    until("the queue to be read", lambda: agent.comfy.state()["requests"].get("GET /queue", 0) >= 4)
    agent.comfy.release()
    assert [each.result().status for each in waiting] == [200] * 4
    assert len(agent.comfy.prompts) == 4


def test_18_a_restart_in_between(both):
    """18. Queue, history and cache are gone: what was queued there is posted again."""
    agent = both.agent(env={"MAX_CONCURRENCY": "3"})
    agent.comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = [later(agent.run, {**image_prompt(n, prefix=f"own{n}"), "3": node("TestSteps", n=2, ms=1, seed=n)},
                     f"t{n}") for n in range(3)]
    until("all to be there", lambda: len(agent.comfy.prompts) == 3)
    agent.comfy.await_hold("node")
    os.kill(agent.comfy.state()["pid"], signal.SIGKILL)
    for n, each in enumerate(waiting):
        images(each.result())
        assert each.result().json["2"]["images"][0]["filename"].startswith(f"own{n}_")
        assert agent.record(f"t{n}").json["attempt"] == 2
    assert len(agent.comfy.prompts) == 3, "of the new process"


def test_18_a_restart_of_a_comfyui_that_is_not_ours(both):
    """18. The same, seen from outside: somebody else restarts it."""
    comfy = both.comfyui()
    agent = both.agent(url=comfy.url)
    comfy.control({"at": "node", "do": "hold", "class": "TestSteps"})
    waiting = later(agent.run, blue(), "t")
    comfy.await_hold("node")
    comfy.process.signal(signal.SIGKILL)
    comfy.process.wait()
    both.comfyui(port=comfy.port)
    images(waiting.result())
    assert agent.record("t").json["attempt"] == 2
    images(agent.run(image_prompt(3)))
