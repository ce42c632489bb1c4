"""Every error of the wire becomes one of ours, and the public names are pinned."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

import galatea
from galatea import errors
from galatea._wire.endpoint import Endpoint
from galatea._wire.security import Security
from galatea.errors import (
    DeadlineExceeded,
    GalateaError,
    InvalidInput,
    ModelUnavailable,
    ServerError,
    ServerUnreachable,
)

GRPC_STATUS = {
    "CANCELLED": ServerUnreachable,
    "UNKNOWN": ServerError,
    "INVALID_ARGUMENT": InvalidInput,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ModelUnavailable,
    "ALREADY_EXISTS": ServerError,
    "PERMISSION_DENIED": ServerError,
    "RESOURCE_EXHAUSTED": ServerError,
    "FAILED_PRECONDITION": ServerError,
    "ABORTED": ServerError,
    "OUT_OF_RANGE": ServerError,
    "UNIMPLEMENTED": ServerError,
    "INTERNAL": ServerError,
    "UNAVAILABLE": ServerUnreachable,
    "DATA_LOSS": ServerError,
    "UNAUTHENTICATED": ServerError,
}

TRITON_MESSAGES = {
    "Request for unknown model: 'x' has no available versions": ModelUnavailable,
    "Request for unknown model: 'x' version 3 is not at ready state": ModelUnavailable,
    "Model 'x' is not ready": ModelUnavailable,
}

EXIT_CODES = {
    "MachineError": 1,
    "ServerError": 1,
    "ServerUnreachable": 3,
    "ModelUnavailable": 4,
    "InvalidInput": 5,
    "ExportError": 5,
    "RepositoryError": 5,
    "DeadlineExceeded": 6,
}


class Failing(grpc.GenericRpcHandler):
    """Answers every call with one status and message."""

    status = grpc.StatusCode.OK
    message = ""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(self.status, self.message)
        )


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[Failing, Endpoint]]:
    server, handler = grpc.server(ThreadPoolExecutor(1)), Failing()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("localhost:0")
    server.start()
    endpoint = Endpoint(f"localhost:{port}", Security(), timeout=20.0)
    yield handler, endpoint
    endpoint.close()
    server.stop(None)


def told(failing: tuple[Failing, Endpoint], status: str, message: str) -> GalateaError:
    handler, endpoint = failing
    handler.status, handler.message = grpc.StatusCode[status], message
    with pytest.raises(GalateaError) as caught:
        endpoint.index()
    assert endpoint.address in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("status", "kind"), GRPC_STATUS.items())
def test_every_grpc_status_has_its_error(
    failing: tuple[Failing, Endpoint], status: str, kind: type[GalateaError]
) -> None:
    error = told(failing, status, "it went wrong.")
    assert type(error) is kind
    assert error.remedy


@pytest.mark.parametrize(("message", "kind"), TRITON_MESSAGES.items())
def test_tritons_words_decide_where_its_status_does_not(
    failing: tuple[Failing, Endpoint], message: str, kind: type[GalateaError]
) -> None:
    assert type(told(failing, "UNAVAILABLE", message)) is kind


def test_the_tree_has_one_root_and_eight_leaves_each_with_an_exit_code() -> None:
    leaves = {kind.__name__: kind.exit_code for kind in GalateaError.__subclasses__()}
    assert leaves == EXIT_CODES
    assert all(not kind.__subclasses__() for kind in GalateaError.__subclasses__())
    assert set(errors.__all__) == {"GalateaError", *EXIT_CODES}
    for name in EXIT_CODES:
        assert name in (errors.__doc__ or "")


def test_public_names_are_pinned_sorted_and_there() -> None:
    assert galatea.__all__ == sorted(galatea.__all__)
    assert set(EXIT_CODES) < set(galatea.__all__)
    assert {"Client", "ModelCard", "Samples"} < set(galatea.__all__)
    assert all(hasattr(galatea, name) for name in galatea.__all__)
