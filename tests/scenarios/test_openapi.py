"""The served OpenAPI document is true: whatever is asked, the answer is one of those that it describes."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case as AnyCase
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks

from tests.scenarios.server import Server, Witness, text_body, until

Case = AnyCase[Any]
EXAMPLES = {GenerationMode.POSITIVE: 8, GenerationMode.NEGATIVE: 4}
"""Requests for each call: as the document says, and not as it says."""
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
ENDLESS = "/api/v1/events"
"""A stream: its own tests read it."""
BATCH = "/api/v1/messages/batch"
NAMES = ["bot", "email", "words", "wide"]


class Api:
    """A server with something of everything in it, and what its document says."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.base = f"http://127.0.0.1:{server.port}"
        self.session = requests.Session()
        self.session.trust_env = False
        self.document = self.session.get(self.base + "/openapi.json", timeout=10).json()
        self.schema = schemathesis.openapi.from_dict(self.document)
        self.ids: list[str] = []
        self.statuses: Counter[int] = Counter()

    def fill(self, witness: Witness) -> None:
        server = self.server
        server.account("bot", witness, 1000, concurrency=4)
        server.api("PUT", "/limits/wide", {"scope": {"queue": "email"}, "limit": "100/s"})
        server.api("PUT", "/queues/email", {"concurrency": 2})
        server.api("PUT", "/templates/words", {"subject": "Hello", "text": "Hello {{ name }}"})
        done = server.send(**text_body("bot", "sent"))
        lost = server.send(channel="webhook", to="http://127.0.0.1:1/", payload=[1], max_attempts=1)
        until(lambda: server.get(done)["state"] == "completed", "the first is sent")
        until(lambda: server.get(lost)["state"] == "failed", "the second has failed")
        later = [server.send(**text_body("bot", "later", delay="1h")) for _ in range(4)]
        batch = server.api("POST", "/messages/batch", {"messages": [text_body("bot", "b", delay="1h")]})
        self.ids = [done, lost, *later, batch["batch"]]

    def ask(self, case: Case, *more: schemathesis.CheckFunction) -> None:
        """Send it, and hold the answer against the document."""
        headers = {"Authorization": f"Bearer {self.server.key}"}
        answer = case.call(base_url=self.base, headers=headers, session=self.session, timeout=20)
        self.statuses[answer.status_code] += 1
        case.validate_response(answer, checks=[*CHECKS, *more])
        assert "Traceback" not in answer.text

    def meant(self, case: Case, data: st.DataObject) -> None:
        """Often name something that exists, and often say what may be said."""
        for name in case.path_parameters:
            if data.draw(st.integers(0, 3)):
                known = self.ids if name == "id" else NAMES
                case.path_parameters[name] = data.draw(st.sampled_from(known))
        body = self.document["paths"][case.path][case.method.lower()].get("requestBody", {})
        example = body.get("content", {}).get("application/json", {}).get("example")
        if isinstance(case.body, dict) and example and data.draw(st.booleans()):
            kept = data.draw(st.sets(st.sampled_from(sorted(case.body)), max_size=2)) if case.body else set()
            case.body = example | {name: case.body[name] for name in kept}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("openapi")
    with Witness(folder) as witness, Server(folder) as server:
        server.start()
        api = Api(server)
        api.fill(witness)
        yield api
        api.session.close()
        assert server.ask("GET", "/health/live").status == 200
        log = server.log.read_text("utf-8")
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if '"level": "error"' in line] == []


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_document_describes(api: Api, mode: GenerationMode) -> None:
    operations = [found.ok() for found in api.schema.get_all_operations() if isinstance(found, Ok)]
    assert {call.path for call in operations} == set(api.document["paths"])
    for call in operations:
        takes = list(call.path_parameters) or list(call.query) or call.body
        if call.path == ENDLESS or (mode is GenerationMode.NEGATIVE and not takes):
            continue
        _hold(api, call, mode)
    # Not everything was refused at the door: the checks behind it were reached as well.
    wanted = {200, 202, 204, 404, 409, 422} if mode is GenerationMode.POSITIVE else {400, 422}
    assert wanted <= set(api.statuses)


def _hold(api: Api, call: APIOperation[Any, Any, Any, Any], mode: GenerationMode) -> None:
    # What the shape forbids must be refused. Of a batch, each message is accepted or refused on its own.
    negative = mode is GenerationMode.NEGATIVE and call.path != BATCH
    more = [checks.negative_data_rejection] if negative else []

    @settings(
        max_examples=EXAMPLES[mode], derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        case = data.draw(call.as_strategy(mode))
        if mode is GenerationMode.POSITIVE:
            api.meant(case, data)
        api.ask(case, *more)

    run()
