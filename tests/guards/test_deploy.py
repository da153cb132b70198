"""The files under `deploy/` fit the product and one another."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline.cli.processes import LAST_S
from paceline.config import CLIENT_VARIABLES, NAMES, Settings, load
from paceline.model.durations import parse_duration
from tests.guards.deployed import COMPOSE, DEPLOY, NODES, expressions, read, texts

SPARE_S = LAST_S
"""What the rest of an end may take after the grace of calls."""
WATCHED = {"/health/live", "/health/ready", "/metrics"}


def settings_of(environment: dict[str, str], arguments: list[str]) -> Settings:
    """What a node would run with; the arguments are `up` and options with values."""
    assert arguments[0] == "up"
    given = {
        name.removeprefix("--"): value for name, value in zip(arguments[1::2], arguments[2::2], strict=True)
    }
    return load(given, {name: value.replace("${DATABASE_PASSWORD:?write it into the file .env}", "pw")
                        for name, value in environment.items()})  # fmt: skip


def test_every_setting_that_is_named_exists() -> None:
    known = {f"PACELINE_{name.upper()}" for name in NAMES} | {f"PACELINE_{name}" for name in CLIENT_VARIABLES}
    named = {(name, path) for path, text in texts().items() for name in re.findall(r"PACELINE_[A-Z_]+", text)}
    assert len({name for name, _ in named}) >= 4
    assert [pair for pair in sorted(named) if pair[0] not in known] == []


def test_images_name_no_host() -> None:
    images = [service["image"] for service in read("compose", "compose.yaml")["services"].values()]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert len(images) == 7
    assert [image for image in images if "." in image.split("/")[0].split(":")[0]] == []


def test_the_nodes_of_the_compose_file_share_a_store_and_have_their_roles() -> None:
    services = read("compose", "compose.yaml")["services"]
    found = [settings_of(services[name]["environment"], services[name]["command"]) for name in NODES]
    assert [each.role for each in found] == ["all", "sender"]
    assert {each.store for each in found} == {"postgresql://paceline:pw@database/queue"}
    for each, name in zip(found, NODES, strict=True):
        assert each.host == "0.0.0.0" and each.port == 8080
        assert services[name]["volumes"] == [f"keys:{each.data}"]
        stop_s = parse_duration(services[name]["stop_grace_period"], least=0, most=10**9) / 1000
        assert stop_s >= each.grace + SPARE_S
    database = services["database"]["environment"]
    assert (database["POSTGRES_USER"], database["POSTGRES_DB"]) == ("paceline", "queue")


def test_what_the_compose_file_refers_to_is_there() -> None:
    compose = read("compose", "compose.yaml")
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys(), name
        assert set(service.get("secrets", ())) <= compose["secrets"].keys(), name
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert (COMPOSE / source).exists() if source.startswith(".") else source in compose["volumes"], (
                mount
            )
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    build = services["first"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert waits["second"] == {"first": {"condition": "service_healthy"}}, "both would make keys"
    assert waits["first"] == {"database": {"condition": "service_healthy"}}


def test_prometheus_asks_every_node_with_the_key_that_it_is_given() -> None:
    compose, (job,) = read("compose", "compose.yaml"), read("compose", "prometheus.yaml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{name}:8080" for name in NODES]}]
    assert job["metrics_path"] in WATCHED
    (secret,) = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    ignored = (COMPOSE / ".gitignore").read_text().split()
    assert compose["secrets"][secret]["file"].removeprefix("./") in ignored and ".env" in ignored


def test_the_dashboard_is_found_and_asks_one_source() -> None:
    (source,) = read("compose", "grafana", "datasources", "prometheus.yaml")["datasources"]
    board = read("compose", "grafana", "dashboards", "paceline.json")
    used = {panel["datasource"]["uid"] for panel in board["panels"]}
    used |= {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]}
    assert used == {source["uid"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    (provider,) = read("compose", "grafana", "dashboards", "paceline.yaml")["providers"]
    mounts = read("compose", "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert all(text.count("(") == text.count(")") for text in expressions())


def test_the_image_runs_as_nobody_special_and_starts_the_program() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    assert 'ENTRYPOINT ["paceline"]' in text and "-c constraints.txt" in text
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)
    names = set(" ".join(copied).split())
    assert names and all((DEPLOY.parent / name).exists() for name in names)
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text()
    assert {line[1:] for line in sent.splitlines() if line.startswith("!")} == names


# -- systemd


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign, assignment]  # as its documentation says to keep capitals
    parser.read_string((DEPLOY / "systemd" / "paceline.service").read_text())
    return parser


def test_the_unit_tells_the_parent_alone_and_waits_long_enough() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == "mixed"
    seconds = parse_duration(service["TimeoutStopSec"], least=0, most=10**9) / 1000
    assert seconds >= Settings().grace + SPARE_S
    assert service["Environment"] == f"PACELINE_DATA=/var/lib/{service['StateDirectory']}"
    assert service["UMask"] == "0077" and "ProcSubset" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "paceline.service").read_text()
    copy = tmp_path / "paceline.service"
    copy.write_text(
        text.replace("/opt/paceline/bin/paceline up", f"{sys.executable} -m paceline.cli.main up")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- Kubernetes


def objects() -> dict[str, Any]:
    base = read("kubernetes", "kustomization.yaml")
    found = [read("kubernetes", name) for name in base["resources"]]
    return {each["kind"]: each for each in found}


def test_the_pods_have_time_to_end_and_are_asked_what_they_answer() -> None:
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    (node,) = pod["containers"]
    environment = {each["name"]: each.get("value", "postgresql://host/queue") for each in node["env"]}
    settings = settings_of(environment, node["args"])
    pause = node["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + settings.grace + SPARE_S
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert node[probe]["httpGet"]["path"] in WATCHED
    start = node["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] > settings.store_wait
    assert [port["containerPort"] for port in node["ports"]] == [settings.port]


def test_the_pods_are_confined_and_get_their_keys_from_the_secret() -> None:
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    volumes = {each["name"] for each in pod["volumes"]}
    for container in [*pod["initContainers"], *pod["containers"]]:
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (secret,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
    store = next(each for each in pod["containers"][0]["env"] if each["name"] == "PACELINE_STORE")
    assert secret["secretName"] == store["valueFrom"]["secretKeyRef"]["name"]
    command = pod["initContainers"][0]["command"]
    assert [f"/keys/{item['path']}" for item in secret["items"]] == command[3:5]
    assert (DEPLOY / "README.md").read_text().count(f"create secret generic {secret['secretName']}") == 1


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_what_kustomize_makes_selects_its_own_pods() -> None:
    import yaml

    command = ["kubectl", "kustomize", str(DEPLOY / "kubernetes")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels
    assert made["Service"]["spec"]["selector"] == labels
    assert made["Deployment"]["spec"]["selector"] == {"matchLabels": labels}
    assert made["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}
    assert made["PodDisruptionBudget"]["spec"]["minAvailable"] < made["Deployment"]["spec"]["replicas"]
