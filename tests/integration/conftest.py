import pytest

from world import REAL, World


def pytest_configure(config):
    config.addinivalue_line("markers", "release: needs the release program (sanitizers would hide it)")
    config.addinivalue_line("markers", "long: takes ten seconds and more, so it begins early")
    config.addinivalue_line("markers", "real: holds for a real ComfyUI too; tests/real.py runs these alone")


def pytest_collection_modifyitems(config, items):
    """With a real ComfyUI in the stand-in's place, what commands the stand-in makes no sense. Several processes
    get items by the dozen: long ones are spread over the first half, or one would have many while others are idle."""
    if REAL:
        others = [item for item in items if item.get_closest_marker("real") is None]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    for n, item in enumerate(long):
        items.insert(n * len(items) // (2 * len(long)), item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed


@pytest.fixture
def world(request, tmp_path):
    made = World(tmp_path, age=getattr(request, "param", "0.33.0"))
    yield made
    made.close(getattr(request.node, "failed", False))


@pytest.fixture(params=["0.33.0", "0.3.7"])
def both(request, tmp_path):
    """A world of each age of ComfyUI."""
    made = World(tmp_path, age=request.param)
    yield made
    made.close(getattr(request.node, "failed", False))


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory):
    """For the tests of a module that leave nothing behind which another could stumble over."""
    made = World(tmp_path_factory.mktemp("shared"))
    yield made
    made.close(failed=True)


@pytest.fixture(scope="module")
def agent(shared_world):
    return shared_world.agent("shared")
