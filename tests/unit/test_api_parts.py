"""The parts of the HTTP interface that need no server."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.api.batches import _Lines
from paceline.api.door import host_name, is_loopback
from paceline.api.export import COLUMNS, cell, csv_line
from paceline.api.openapi import document
from paceline.api.openapi_calls import CALLS
from paceline.api.reference import render
from paceline.api.routes import ENDPOINTS, INGEST, PREFIX

DOCUMENT: dict[str, Any] = json.loads(json.dumps(document(), default=str))
_METHODS = {"get", "put", "post", "delete", "patch"}


# -- lines


@given(
    st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)),
    st.lists(st.integers(1, 30)),
    st.booleans(),
)
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    stream = b"\n".join(lines) + (b"\n" if ended else b"")
    reader, found, at = _Lines(10), [], 0
    for cut in cuts:
        found += reader.feed(stream[at : at + cut])
        at += cut
    found += reader.feed(stream[at:]) + reader.rest()
    assert found == [line if len(line) <= 10 else None for line in lines if len(line) > 10 or line.strip()]


def test_of_an_endless_line_nothing_is_kept() -> None:
    reader = _Lines(1000)
    for _ in range(100):
        assert reader.feed(b"x" * 999) == []
        assert len(reader._open) <= 1000
    assert reader.feed(b"\nnext\n") == [None, b"next"]


# -- cells


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x",
                                  "+49 170", "+", "+1=2", "+12", "+" + "1" * 21, "+４９１７０"])  # fmt: skip
def test_a_cell_is_no_formula(text: str) -> None:
    assert cell(text) == "'" + text


@pytest.mark.parametrize("text", ["+491701234567", "491701234567", "a=b", "", "'=1", "a@example.org", " =1"])
def test_an_ordinary_cell_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "true"), (-5, "-5"), (1.5, "1.5"), ({}, "{}")]
)
def test_other_values_are_written_as_json(value: Any, text: str) -> None:
    assert cell(value) == text


def test_a_row_has_a_cell_for_each_column() -> None:
    assert csv_line(COLUMNS).decode().strip().split(",") == list(COLUMNS)


# -- hosts


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("10.0.0.1", False), ("queue.example", False)],
)  # fmt: skip
def test_loopback_addresses_are_known(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("netloc", "name"),
    [("localhost:80", "localhost"), ("[::1]:80", "::1"), ("A.Example", "a.example"), ("u@h", "h"), ("[::1", ""), ("", "")],
)  # fmt: skip
def test_the_name_of_a_host_is_found(netloc: str, name: str) -> None:
    assert host_name(netloc) == name


# -- the OpenAPI document


def _routes() -> set[tuple[str, str]]:
    routed = {(endpoint.method.lower(), PREFIX + endpoint.path) for endpoint in ENDPOINTS}
    routed |= {(method.lower(), PREFIX + path) for path, methods in INGEST.items() for method in methods}
    outside = ("/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/metrics")
    return routed | {("get", path) for path in outside}


def test_the_document_has_the_calls_that_there_are() -> None:
    written = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert written == _routes()
    assert all(method in _METHODS for method, _ in written)


def test_the_document_has_the_parameters_and_roles_that_there_are() -> None:
    rows = {(call.method, call.path): call for call in CALLS}
    for endpoint in ENDPOINTS:
        row = rows[endpoint.method, PREFIX + endpoint.path]
        assert (set(row.query), row.role) == (set(endpoint.query), endpoint.role), endpoint.path


def test_every_reference_in_the_document_leads_somewhere() -> None:
    for target in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT))):
        found: Any = DOCUMENT
        for name in target.split("/"):
            found = found[name]


def test_every_shape_is_used_and_every_call_tells_its_errors() -> None:
    text = json.dumps(DOCUMENT)
    for name in DOCUMENT["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text, name
    for path, methods in DOCUMENT["paths"].items():
        for method, call in methods.items():
            errors = {status for status in call["responses"] if status >= "400"}
            assert "500" in errors
            if path.startswith(PREFIX):
                assert {"401", "403", "422", "503"} <= errors, (method, path)
            if "requestBody" in call:
                assert {"400", "413", "415"} <= errors, (method, path)
            if "{" in path:
                assert "404" in errors, (method, path)


def test_operation_ids_are_unique() -> None:
    ids = [call["operationId"] for methods in DOCUMENT["paths"].values() for call in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_page_escapes_what_it_shows() -> None:
    hostile = json.loads(json.dumps(DOCUMENT).replace("Take a message in", "<img src=x onerror=alert(1)>"))
    page = render(hostile, "", "")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
