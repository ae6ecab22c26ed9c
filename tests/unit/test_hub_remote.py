"""The Hub's settings and addresses."""

from __future__ import annotations

import pytest

from rechka.errors import UsageError
from rechka.hub.remote import ENDPOINT, Hub, is_offline

VARIABLES = ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "RECHKA_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    hub = Hub.from_environment()
    assert (hub.endpoint, hub.token, hub.offline, hub.timeout_s) == (ENDPOINT, "", False, 30.0)


def test_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hf/")
    monkeypatch.setenv("HF_TOKEN", " hf_x\n")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")
    hub = Hub.from_environment()
    assert (hub.endpoint, hub.token, hub.timeout_s) == ("https://mirror.example/hf", "hf_x", 2.5)
    assert hub.url("a/b", "main", "x/y.onnx") == "https://mirror.example/hf/a/b/resolve/main/x/y.onnx"


@pytest.mark.parametrize("name", ["RECHKA_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), ("YES", True), ("0", False), ("", False)])
def test_offline(monkeypatch: pytest.MonkeyPatch, name: str, value: str, off: bool) -> None:
    monkeypatch.setenv(name, value)
    assert is_offline() is off
    assert Hub.from_environment().offline is off
    assert Hub.from_environment(offline=not off).offline is not off


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "file:///etc"),
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "0"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "nan"),
        ("HF_TOKEN", "two\nlines"),
        ("HF_TOKEN", "токен"),
    ],
)
def test_values_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        Hub.from_environment()
    assert name != "HF_TOKEN" or value not in str(caught.value)


def test_a_revision_with_a_slash_stays_one_part_of_the_address() -> None:
    assert Hub().url("a/b", "refs/pr/1", "x") == f"{ENDPOINT}/a/b/resolve/refs%2Fpr%2F1/x"
