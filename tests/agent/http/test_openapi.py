from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from agent.http import plain_api, prometheus_api
from agent.http.app import Application
from agent.http.export_formats import FORMATS
from agent.http.openapi import OPERATIONS, document
from sinks.history.history import History
from tests.agent.http.asking import END_S, START_S, Client, client_of

DOCUMENT = document()
OUTSIDE_OF_IT = {404}  # never the answer of a documented path


async def test_the_document_is_served_and_is_openapi_3_1(client: Client) -> None:
    answer = await client.get("/api/openapi.json")
    assert answer.json() == msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    assert answer.json()["openapi"] == "3.1.0"
    identifiers = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(set(identifiers)) == len(identifiers)


async def test_every_route_is_in_the_document_and_every_path_of_the_document_is_a_route(client: Client) -> None:
    described = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    app = Application(OPERATIONS, dict.fromkeys((one.path for one in OPERATIONS), _nothing))
    routed = {(route.path, method) for route in app.routes for method in route.methods or () if method != "HEAD"}
    assert described == routed
    for path, method in sorted(described):
        answer = await client.call(method, path.replace("{name}", "job"))
        assert answer.status not in {404, 405, 500}, (method, path)


async def _nothing(_: Any) -> Any:
    raise AssertionError("not called")


def test_the_formats_of_an_export_are_those_documented() -> None:
    (export,) = (one for one in OPERATIONS if one.path == "/api/v1/metrics/export")
    (form,) = (one for one in export.parameters if one.name == "format")
    assert form.schema["enum"] == list(FORMATS)
    assert {one.media_type.partition(";")[0] for one in FORMATS.values()} == set(export.answer)


def test_own_endpoints_know_which_parameters_are_no_labels() -> None:
    for operation in OPERATIONS:
        if operation.takes_labels:
            assert {one.name for one in operation.parameters} <= plain_api._OWN_WORDS


def test_the_limits_documented_are_those_kept() -> None:
    assert prometheus_api.MOST_POINTS == plain_api.MOST_POINTS == 11_000


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, and some texts it does not speak of."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(values_of(schema["items"]), max_size=3)
    if schema["type"] == "integer":
        return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31))
    examples = schema.get("examples", ["node_load1", "sum(node_load1)", 'node_odd{kind!="large"}', "1"])
    return st.sampled_from([*examples, str(START_S), str(END_S), "60"]) | st.text(max_size=20)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    """A method, a path, its parameters and the operation, as the document describes them."""
    path = draw(st.sampled_from(sorted(DOCUMENT["paths"])))
    method = draw(st.sampled_from(sorted(DOCUMENT["paths"][path])))
    operation = DOCUMENT["paths"][path][method]
    if method == "post":
        form = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        described = [{"name": name, "schema": schema, "required": name in form["required"]}
                     for name, schema in form["properties"].items()]  # fmt: skip
    else:
        described = operation.get("parameters", [])
    params = {
        one["name"]: draw(values_of(one["schema"]))
        for one in described
        if one["schema"]["type"] != "object" and (one["required"] or draw(st.booleans()))
    }
    filled = path.replace("{name}", str(params.pop("name", "")).replace("/", "") or "job")
    return method, filled, params, operation


@given(requests())
def test_every_answer_is_one_the_document_describes(
    history: History, asked: tuple[str, str, dict[str, Any], dict[str, Any]]
) -> None:
    method, path, params, operation = asked

    async def ask() -> Any:
        client = client_of(history)
        return await (client.post(path, params) if method == "post" else client.get(path, params))

    answer = asyncio.run(ask())
    described = operation["responses"].get(str(answer.status))
    assert described is not None, f"{method} {path} {params}: {answer.status} is not documented: {answer.text[:200]}"
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in described["content"], f"{method} {path}: {answer.status} {kind}"
    if path.startswith("/api/v1/") and kind == "application/json":
        wanted = "Success" if answer.status == 200 else "Error"
        schema = DOCUMENT["components"]["schemas"][wanted]
        found = answer.json()
        assert set(schema["required"]) <= found.keys() <= schema["properties"].keys()
        assert found["status"] == schema["properties"]["status"]["const"]
