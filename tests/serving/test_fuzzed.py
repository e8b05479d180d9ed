"""The OpenAPI document is what the endpoint does: made-up requests get answers that it describes, and never a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PATHS = [
    "/v1/images/edits",
    "/v1/transfers",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/adapters",
    "/v1/adapters/{name}",
    "/v1/adapters/{name}/versions",
    "/v1/adapters/{name}/versions/{number}",
    "/v1/adapters/{name}/aliases",
    "/v1/adapters/{name}/aliases/{alias}",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/jobs",
    "/v1/jobs/{id}",
    "/v1/jobs/{id}/cancel",
]


@pytest.fixture(scope="module")
def document(endpoint):
    return schemathesis.openapi.from_url(f"{endpoint.url}/openapi.json")


def test_every_path_is_tried(document):
    assert set(document) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_answers_are_those_of_the_document(document, path):
    for operation in document[path].values():

        @settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def holds(case):
            case.call_and_validate(checks=CHECKS)

        holds()
