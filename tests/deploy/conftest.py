import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import bare_system


@pytest.fixture
def bare(tmp_path):
    reason = bare_system.why_not()
    if reason:
        pytest.skip(reason)
    system = bare_system.System(tmp_path / "system")
    yield system
    system.close()
