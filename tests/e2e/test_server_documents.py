"""What the server says of its addresses is true, route by route and message by message; requests made from it work."""

from __future__ import annotations

import json
import urllib.request
import warnings
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.routing import Route, WebSocketRoute
from websockets.sync.client import connect

from rechka.server.app import PROTOCOLS
from rechka.server.describe import asyncapi, openapi
from rechka.server.describe.asyncapi import CLIENT, OTHERS, SERVER
from rechka.server.routes.native import FIELDS, SECRETS
from rechka.testing.servers import serving
from rechka.testing.toy import say

STATIC = (".js", ".css", ".svg", ".html")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(data_dir=tmp_path_factory.mktemp("data"), history="on") as running:
        yield running


def routes(server: Any) -> tuple[dict[str, set[str]], set[str]]:
    """Methods of every HTTP path, and the paths of sockets."""
    http: dict[str, set[str]] = {}
    sockets: set[str] = set()
    for name in PROTOCOLS:
        for route in import_module(f"rechka.server.routes.{name}").routes(server.service):
            path = route.path.replace("{name:path}", "{name}")
            if isinstance(route, WebSocketRoute):
                sockets.add(path)
            elif isinstance(route, Route) and not path.endswith(STATIC):
                http.setdefault(path, set()).update(m.lower() for m in route.methods or () if m != "HEAD")
    return http, sockets


def test_every_address_is_described(server):
    http, sockets = routes(server)
    described = {path: set(operations) for path, operations in openapi(keys=False)["paths"].items()}
    assert described == http
    assert {"/v1/stream", *OTHERS} == sockets


def test_the_documents_are_served(server):
    for name, key in (("openapi", "openapi"), ("asyncapi", "asyncapi")):
        with urllib.request.urlopen(f"{server.http}/{name}.json") as answer:
            assert json.load(answer)[key][0] == "3"
    document = openapi(keys=True)
    assert document["security"]
    assert document["paths"]["/livez"]["get"]["security"] == []
    validators = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    validators.validate(openapi(keys=False))


def test_references_of_the_documents_lead_somewhere():
    for document in (openapi(keys=False), asyncapi()):
        names: list[str] = []

        def find(value: Any, names: list[str] = names) -> None:
            if isinstance(value, dict):
                names += [value["$ref"]] if "$ref" in value else []
                for one in value.values():
                    find(one)
            elif isinstance(value, list):
                for one in value:
                    find(one)

        find(document)
        assert names
        for name in names:
            place: Any = document
            for part in name.removeprefix("#/").split("/"):
                place = place[part]


def test_messages_of_the_native_protocol_fit(server):
    """A whole conversation; every message of the server against its schema, which allows no others."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    components = {"components": {"schemas": asyncapi()["components"]["schemas"]}}
    audio = (say("добрый день", before_s=0.5, after_s=1.5) * 32767).astype("<i2").tobytes()
    seen = set()
    with connect(f"{server.ws}/v1/stream") as socket:
        start = {"type": "start", "sample_rate": 8000, "pause": 0.6}
        jsonschema.validate(start, CLIENT["start"])
        socket.send(json.dumps(start))
        socket.send(audio)
        socket.send('{"type":"nonsense"}')
        socket.send('{"type":"flush"}')
        socket.send('{"type":"finish"}')
        for text in socket:
            message = json.loads(text)
            seen.add(message["type"])
            schema = {**SERVER[message["type"]], "additionalProperties": False, **components}
            jsonschema.validate(message, schema)
    assert seen >= {"ready", "speech_start", "speech_end", "final", "flushed", "cursor", "done", "error"}


def test_options_of_the_native_protocol_are_all_described():
    assert set(CLIENT["start"]["properties"]) - {"type"} == FIELDS - SECRETS


def test_requests_made_from_the_document(server):
    """Schemathesis: nothing ends in a fault, and every answer is as the document says."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from schemathesis.specs.openapi import checks

    asked: set[str] = set()

    def check(case: Any) -> None:
        asked.add(case.path)
        response = case.call(base_url=server.http, timeout=120)
        assert response.status_code < 500 or response.status_code in (503, 507), response.text
        case.validate_response(
            response,
            checks=[
                checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance
            ],
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_dict(openapi(keys=False))
        limited = settings(
            max_examples=20, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        for operation in schema.get_all_operations():
            seed(1)(limited(given(operation.ok().as_strategy())(check)))()
    assert len(asked) > 10
    with urllib.request.urlopen(f"{server.http}/livez") as answer:
        assert answer.status == 200
