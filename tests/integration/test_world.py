"""What the worlds of the tests say of an agent that did not end as it should."""

import signal

import pytest

from world import World, until


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("NEVER_AGAIN", str(tmp_path / "never-again"))
    return World(tmp_path)


def gets_a_second_try(world):
    return not (world.directory / "never-again").exists()


def agent_of(world):
    agent = world.agent(ready=False, url="http://127.0.0.1:9")
    until("the agent to answer", agent.answers)
    return agent


def test_an_agent_that_died_after_all_was_asked_is_told_of(made):
    agent = agent_of(made)
    agent.child.send_signal(signal.SIGKILL)  # not by the test, as far as the world knows
    agent.wait()
    with pytest.raises(AssertionError, match="agent.log: ended with -9"):
        made.close(False)
    assert not gets_a_second_try(made)


def test_so_is_one_that_a_signal_killed_which_it_should_have_survived(made):
    agent = agent_of(made)
    agent.signal(signal.SIGUSR1)
    agent.wait()
    with pytest.raises(AssertionError, match=f"agent.log: ended with -{signal.SIGUSR1}"):
        made.close(False)
    assert not gets_a_second_try(made)


def test_so_is_what_a_sanitizer_found_whatever_the_end(made):
    agent = agent_of(made)
    agent.out.write(b"SUMMARY: AddressSanitizer: heap-use-after-free\n")
    agent.out.flush()
    agent.stop()
    with pytest.raises(AssertionError, match="heap-use-after-free"):
        made.close(False)
    assert not gets_a_second_try(made)


def test_so_is_one_that_gave_up_by_itself(made):
    made.agent(ready=False, env={"LISTEN_HOST": "nowhere"}).wait()
    with pytest.raises(AssertionError, match="agent.log: ended with 78"):
        made.close(False)
    assert gets_a_second_try(made)


def test_one_that_the_test_killed_is_not(made):
    agent = agent_of(made)
    agent.signal(signal.SIGKILL)
    agent.wait()
    made.close(False)


def test_nor_is_one_that_was_to_end_so(made):
    made.agent(ready=False, env={"LISTEN_HOST": "nowhere"}).ends(78)
    made.close(False)
