"""The files of deploy/ name settings that exist, with values that the server takes, and their programs accept them."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rechka.server.settings import PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
NAMES = {field.name for field in dataclasses.fields(Settings)}
NOT_SETTINGS = {"home", "api_key"}
"""Of the whole program: where downloaded models lie; and of clients: their key."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_are_settings(path: Path) -> None:
    named = {name.lower() for name in re.findall(rf"\b{PREFIX}([A-Z_]+)\b", path.read_text("utf-8"))}
    assert named <= NAMES | NOT_SETTINGS


def documents(path: Path) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def test_kubernetes() -> None:
    kinds = {document["kind"]: document for document in documents(DEPLOY / "k8s" / "rechka.yaml")}
    pod = kinds["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert pod["spec"]["terminationGracePeriodSeconds"] > float(variables["RECHKA_GRACE_S"]) + 3  # preStop
    assert kinds["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (metric,) = kinds["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "rechka_streams"
    assert float(metric["pods"]["target"]["averageValue"]) == 0.7 * float(variables["RECHKA_MAX_STREAMS"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_compose() -> None:
    (document,) = documents(DEPLOY / "docker" / "compose.yaml")
    service = document["services"]["rechka"]
    assert (DEPLOY / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().grace_s
    assert set(service["secrets"]) == set(document["secrets"])
    assert service["environment"]["RECHKA_KEYS_FILE"].rsplit("/", 1)[1] in document["secrets"]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_what_images_copy_is_let_in(name: str) -> None:
    """``.dockerignore`` keeps everything out but what the build names."""
    let_in = set(re.findall(r"^!(\S+)$", (DEPLOY.parent / ".dockerignore").read_text("utf-8"), re.M))
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "docker" / name).read_text("utf-8"), re.M):
        copied |= set(line.split()[:-1])
    assert copied == let_in
    assert all((DEPLOY.parent / path).exists() for path in copied)


def test_the_unit_outlives_the_drain() -> None:
    text = (DEPLOY / "systemd" / "rechka.service").read_text("utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert stop is not None
    assert float(stop[1]) > Settings().grace_s
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "verify", str(DEPLOY / "systemd" / "rechka.service")], capture_output=True, text=True
        )
        wrong = [line for line in done.stderr.splitlines() if "rechka.service" in line]
        assert all("/opt/rechka/bin/rechka is not executable" in line for line in wrong), wrong  # not installed here


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_takes_its_file() -> None:
    done = subprocess.run(
        ["haproxy", "-c", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
