"""The files of the deployment guide hold together: options, probes, grace."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from typing import Any

import click
import pytest

pytest.importorskip("yaml")

import yaml

from jobqueue.cli.main import main
from tests.docs.doc_pages import DOCS, PAGES, Block, blocks

PAGE = DOCS / "guides" / "deployment.md"
SERVED = {"/healthz", "/readyz"}


def of(language: str) -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == language]


def options(words: list[str]) -> dict[str, Any]:
    """Return the options of a command line, as the command itself reads them."""
    program, name, *arguments = words
    assert program.rpartition("/")[2] == "jobqueue"
    command = main.commands[name]
    if name == "reaper":  # which finds it in its environment
        arguments = ["-s", "redis://localhost", *arguments]
    with click.Context(main) as parent:
        return command.make_context(name, arguments, parent=parent).params


def documents() -> list[dict[str, Any]]:
    return [found for block in of("yaml") for found in yaml.safe_load_all(block.code)]


def deployments() -> list[dict[str, Any]]:
    return [found for found in documents() if found.get("kind") == "Deployment"]


def services() -> list[dict[str, Any]]:
    return [service for found in documents() for service in found.get("services", {}).values()]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def test_all_yaml_of_the_documentation_can_be_read() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language in {"yaml", "yml"}]
    assert found
    for block in found:
        assert list(yaml.safe_load_all(block.code)), f"{block.page}:{block.line}"


@pytest.mark.parametrize("deployment", deployments(), ids=lambda each: each["metadata"]["name"])
def test_a_deployment_on_kubernetes(deployment: dict[str, Any]) -> None:
    spec = deployment["spec"]
    template = spec["template"]
    wanted, labels = spec["selector"]["matchLabels"], template["metadata"]["labels"]
    assert wanted.items() <= labels.items(), "the selector finds its pods"
    (container,) = template["spec"]["containers"]
    given = options(container["args"])
    assert given["health_host"] == "0.0.0.0", "probes come from outside of the pod"
    for kind in ("readinessProbe", "livenessProbe"):
        probe = container[kind]["httpGet"]
        assert probe["path"] in SERVED
        assert probe["port"] == given["health_port"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    grace = template["spec"].get("terminationGracePeriodSeconds", 30)
    assert grace > (given.get("timeout") or 0)
    assert any(variable["name"] == "JOBQUEUE_STORAGE" for variable in container["env"])
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    assert "prometheus.io/path" not in template["metadata"].get("annotations", {}) or (
        template["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"
        and template["metadata"]["annotations"]["prometheus.io/port"] == str(given["health_port"])
    )
    assert ":" in container["image"]
    assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("service", services(), ids=lambda service: service["image"])
def test_a_service_of_docker_compose(service: dict[str, Any]) -> None:
    if service["command"][0] != "jobqueue":
        assert "noeviction" in service["command"]
        return
    given = options(service["command"])
    assert seconds(service.get("stop_grace_period", "10s")) > (given.get("timeout") or 0)
    check = " ".join(service.get("healthcheck", {}).get("test", ()))
    for path in re.findall(r"127\.0\.0\.1:(\d+)(/\w+)", check):
        assert path == (str(given["health_port"]), "/healthz")


@pytest.mark.parametrize("block", of("ini"), ids=lambda block: str(block.line))
def test_a_unit_of_systemd(block: Block) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.code)
    service = unit["Service"]
    given = options(shlex.split(service["ExecStart"]))
    assert service.getint("TimeoutStopSec", 90) > (given.get("timeout") or 0)
    assert service["Type"] == "notify"


def test_the_image() -> None:
    (block,) = of("dockerfile")
    lines = [line for line in re.sub(r"\\\n\s*", " ", block.code).splitlines() if line and line[0] != "#"]
    steps = [tuple(line.split(" ", 1)) for line in lines]
    names = [name for name, _ in steps]
    assert set(names) <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "STOPSIGNAL", "CMD"}
    assert re.fullmatch(r"python:3\.\d+-slim", dict(steps)["FROM"])
    assert names.index("USER") < names.index("CMD")
    assert dict(steps)["USER"] not in {"root", "0"}
    words = json.loads(dict(steps)["CMD"])
    assert options(words)["health_port"] is not None, "the form of a list: no shell keeps SIGTERM to itself"
