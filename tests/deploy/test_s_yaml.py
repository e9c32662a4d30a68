"""s.yaml: the component's schema, and what the schema does not say."""

import pathlib
import shutil
import subprocess

import pytest
import yaml

from world import ROOT

FIXTURES = ROOT.parent / "shared" / "fixtures"


@pytest.fixture(scope="module")
def text():
    return (ROOT / "s.yaml").read_text()


@pytest.fixture(scope="module")
def gpu(text):
    return yaml.safe_load(text)["resources"]["gpu"]["props"]


@pytest.fixture(scope="module")
def door(text):
    return yaml.safe_load(text)["resources"]["door"]["props"]


def modules():
    """Where node finds ajv and js-yaml, or None."""
    asks = "for (const n of ['ajv', 'js-yaml']) require.resolve(n)"
    for folder in (ROOT, ROOT.parent, FIXTURES):
        if folder.is_dir() and subprocess.run(["node", "-e", asks], cwd=folder, capture_output=True).returncode == 0:
            return folder
    return None


def test_the_schema_takes_it():
    check = FIXTURES / "validate-s-yaml.mjs"
    if not check.exists():
        pytest.skip("../shared/fixtures/validate-s-yaml.mjs is not here")
    if shutil.which("node") is None or modules() is None:
        pytest.skip("node with the packages ajv and js-yaml is not here")
    done = subprocess.run(["node", check, "--strict", ROOT / "s.yaml"], cwd=modules(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_numbers_and_switches_are_such(gpu):
    for value in (gpu["timeout"], gpu["cpu"], gpu["memorySize"], gpu["instanceConcurrency"],
                  gpu["gpuConfig"]["gpuMemorySize"]):
        assert isinstance(value, int)
    assert gpu["instanceConcurrency"] <= 200


def test_the_trigger_is_internal_and_leaves_preflights_to_us(gpu):
    (trigger,) = gpu["triggers"]
    config = trigger["triggerConfig"]
    assert trigger["triggerType"] == "http"
    assert config["authType"] == "anonymous"
    assert config["disableURLInternet"] is True
    assert sorted(config["methods"]) == sorted(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


def test_every_caller_needs_a_key(gpu):
    assert gpu["environmentVariables"]["API_KEY"] == "${env('COMFYUI_API_KEY')}"


def seconds(text):
    return int(text.removesuffix("s"))


def test_hooks_fit_into_their_limits(gpu):
    hooks = gpu["instanceLifecycleConfig"]
    environment = gpu["environmentVariables"]
    assert hooks["initializer"] == {"handler": "initialize", "timeout": 300}
    assert hooks["preStop"]["handler"] == "pre-stop" and hooks["preStop"]["timeout"] <= 90
    assert seconds(environment["DRAIN_TIMEOUT"]) + 10 < hooks["preStop"]["timeout"]
    assert set(hooks) == {"initializer", "preStop"}  # there is no PreFreeze in 3.0


def test_the_health_check_waits_for_nothing(gpu):
    container = gpu["customContainerConfig"]
    assert container["port"] == 9000
    assert container["healthCheckConfig"]["httpGetUrl"] == "/healthz"
    assert 1 <= container["healthCheckConfig"]["timeoutSeconds"] <= 3


def test_async_calls_are_tasks_that_may_be_delivered_again(gpu):
    config = gpu["asyncInvokeConfig"]
    assert config["asyncTask"] is True
    assert 1 <= config["maxAsyncRetryAttempts"] <= 3
    assert config["maxAsyncEventAgeInSeconds"] <= 604800
    assert 60 <= gpu["timeout"] <= 86400


def test_tasks_and_files_lie_on_the_nas(gpu, text):
    (mount,) = gpu["nasConfig"]["mountPoints"]
    given = yaml.safe_load(text)["vars"]
    environment = gpu["environmentVariables"]
    assert (gpu["nasConfig"]["userId"], gpu["nasConfig"]["groupId"]) == (0, 0)
    assert mount["mountDir"] == environment["NAS_DIR"] == "${vars.nasDir}"
    assert environment["STORE_URL"].startswith("file://${vars.nasDir}/tasks")
    assert given["nasDir"].count("/") >= 2 and pathlib.Path(given["nasDir"]).parts[1] in ("mnt", "home", "data", "tmp")
    assert set(gpu["vpcConfig"]) == {"vpcId", "vSwitchIds", "securityGroupId"}  # without them there is no NAS


def test_the_agent_is_on_and_instances_do_not_overwrite_each_other(gpu):
    environment = gpu["environmentVariables"]
    assert environment["USE_AGENT"] == "1"
    assert environment["OUTPUT_FOLDER"] == "task"
    assert all(isinstance(value, str) and value for value in environment.values())
    assert not [name for name in environment if name.startswith("FC_")]  # the platform's own
    assert sum(len(name) + len(value) for name, value in environment.items()) < 4096


# --- the front door ------------------------------------------------------------------------------


def test_the_door_is_the_package_and_calls_the_gpu_function(door):
    assert door["runtime"] == "custom.debian12"
    assert door["code"] == "./build/release/function.zip" and door["handler"] == "bootstrap"
    assert door["customRuntimeConfig"]["command"] == ["/code/bootstrap"]
    assert door["customRuntimeConfig"]["port"] == 9000
    environment = door["environmentVariables"]
    assert environment["USE_AGENT"] == "1"
    assert environment["RUN_URL"] == "${resources.gpu.output.url.system_intranet_url}"
    assert "gpuConfig" not in door


def test_both_share_network_files_tasks_and_key(door, gpu):
    for name in ("vpcConfig", "nasConfig"):
        assert door[name] == gpu[name]
    for name in ("NAS_DIR", "STORE_URL", "OUTPUT_FOLDER", "API_KEY"):
        assert door["environmentVariables"][name] == gpu["environmentVariables"][name]
    assert "RUN_URL" not in gpu["environmentVariables"]  # else it would be a door itself


def test_the_door_is_open_and_the_gpu_function_is_not(door, gpu):
    (trigger,) = door["triggers"]
    assert trigger["triggerConfig"]["disableURLInternet"] is False
    assert trigger["triggerConfig"]["authType"] == "anonymous"  # the agent checks keys
    assert set(trigger["triggerConfig"]["methods"]) >= {"GET", "POST", "DELETE", "OPTIONS"}
    assert gpu["triggers"][0]["triggerConfig"]["disableURLInternet"] is True


def test_the_domain_leads_to_the_door(text):
    domain = yaml.safe_load(text)["resources"]["domain"]
    assert domain["component"] == "fc3-domain"
    (route,) = domain["props"]["routeConfig"]["routes"]
    assert (route["path"], route["functionName"]) == ("/*", "${resources.door.props.functionName}")
    assert "OPTIONS" in route["methods"]


def test_the_door_waits_as_long_as_a_run_takes(door, gpu):
    assert door["timeout"] >= gpu["timeout"]
    assert door["instanceConcurrency"] > gpu["instanceConcurrency"]
    assert door["customRuntimeConfig"]["healthCheckConfig"]["httpGetUrl"] == "/healthz"
    assert seconds(door["environmentVariables"]["DRAIN_TIMEOUT"]) + 10 < door["instanceLifecycleConfig"]["preStop"]["timeout"]
    assert 1 <= door["asyncInvokeConfig"]["maxAsyncRetryAttempts"] <= 3
    assert door["environmentVariables"]["ALLOW_ORIGINS"] == "${vars.allowOrigins}"
