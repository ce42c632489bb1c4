"""What travels: messages that are copied once, connections that are protected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    RepositoryIndexResponse,
)
from tritonclient.utils import serialize_byte_tensor

from galatea import Client, InvalidInput, MachineError, Security, ServerError, ServerUnreachable
from galatea._wire.channel import check_address
from galatea._wire.messages import datatype, pack, unpack

CONTENTS = st.lists(st.binary(max_size=300), max_size=4)


@given(CONTENTS, st.text(max_size=200))
def test_requests_are_what_a_protobuf_library_makes_of_them(
    contents: list[bytes], name: str
) -> None:
    head = ModelInferRequest(model_name=name, model_version="3")
    message = pack(head, [np.frombuffer(content, np.uint8) for content in contents])
    expected = ModelInferRequest(model_name=name, model_version="3", raw_input_contents=contents)
    assert ModelInferRequest.FromString(message) == expected


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_texts_travel_as_tritons_own_client_sends_them(texts: list[str]) -> None:
    array = np.array(texts, object)[:, None]
    message = pack(ModelInferRequest(), [array])
    expected = serialize_byte_tensor(array).item()
    assert list(ModelInferRequest.FromString(message).raw_input_contents) == [expected]
    assert datatype(array) == "BYTES"


@given(CONTENTS, st.text(max_size=200))
def test_answers_are_read_as_a_protobuf_library_reads_them(
    contents: list[bytes], name: str
) -> None:
    answer = ModelInferResponse(model_name=name, raw_output_contents=contents)
    answer.outputs.add(name="image", datatype="UINT8", shape=[2, 300])
    head, raw = unpack(answer.SerializeToString())
    assert [bytes(content) for content in raw] == contents
    del answer.raw_output_contents[:]
    assert head == answer


@given(st.binary(max_size=100))
def test_bytes_that_are_no_answer_are_refused_and_nothing_else_happens(message: bytes) -> None:
    try:
        head, _ = unpack(message)
    except DecodeError:
        return
    assert isinstance(head, ModelInferResponse)


def test_tensors_of_an_answer_are_views_of_the_bytes_that_came() -> None:
    content = os.urandom(1 << 16)
    message = ModelInferResponse(raw_output_contents=[content]).SerializeToString()
    (raw,) = unpack(message)[1]
    assert np.shares_memory(np.frombuffer(raw, np.uint8), np.frombuffer(message, np.uint8))


@pytest.mark.parametrize(
    "address",
    ["localhost:8001", "10.0.0.7:8001", "[::1]:8001", "dns:///triton:8001", "ipv4:127.0.0.1:8001",
     "unix:/run/triton.sock"],
)  # fmt: skip
def test_addresses_are_spelt_as_grpc_spells_them(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["http://a:8000", "grpc://a:1", "a", "a:", ":1", "a:99999", "a b:1", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="no address of a gRPC port"):
        check_address(address)


@pytest.mark.parametrize("urls", [[], ["localhost:1", "localhost:1"]])
def test_a_list_of_servers_names_each_once(urls: list[str]) -> None:
    with pytest.raises(InvalidInput, match="not a list of different servers"):
        Client(urls)


class Guarded(grpc.GenericRpcHandler):
    """A server without models that wants a token."""

    token = "first"

    def service(self, details: Any) -> Any:
        given = dict(details.invocation_metadata).get("authorization")

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if given != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, f"not the token: {given}")
            nothing: bytes = RepositoryIndexResponse().SerializeToString()
            return nothing

        return grpc.unary_unary_rpc_method_handler(answer)


class Place:
    """Where a guarded server is, and the files that a client needs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.handler = folder, Guarded()
        authority = trustme.CA()
        server, client = authority.issue_cert("localhost"), authority.issue_cert("me@clinic")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        client.cert_chain_pems[0].write_to_path(folder / "me.pem")
        client.private_key_pem.write_to_path(folder / "me.key")
        (folder / "token").write_text("first\n")
        credentials = grpc.ssl_server_credentials(
            [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
            authority.cert_pem.bytes(),
            require_client_auth=True,
        )
        self.server = grpc.server(ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers((self.handler,))
        self.url = f"localhost:{self.server.add_secure_port('localhost:0', credentials)}"
        self.server.start()

    def security(self, **changes: Any) -> Security:
        files = {
            "ca": "ca.pem",
            "certificate": "me.pem",
            "key": "me.key",
            "token": "token",
        } | changes
        return Security(**{name: self.folder / file for name, file in files.items() if file})


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.server.stop(None)


def test_certificates_of_both_sides_and_a_token_open_a_connection(guarded: Place) -> None:
    with Client(guarded.url, security=guarded.security()) as client:
        assert client.models() == []


def test_a_token_that_is_renewed_is_read_again(guarded: Place) -> None:
    with Client(guarded.url, security=guarded.security()) as client:
        assert client.models() == []
        guarded.handler.token = "second"
        with pytest.raises(ServerError, match="not the token: Bearer first") as refused:
            client.models()
        assert "--token-file" in refused.value.remedy
        (guarded.folder / "renewed").write_text("second")
        (guarded.folder / "renewed").replace(guarded.folder / "token")
        assert client.models() == []


@pytest.mark.parametrize(
    "changes", [{"certificate": None, "key": None}, {"ca": None}], ids=["client", "server"]
)
def test_a_connection_that_one_side_does_not_trust_is_none(
    guarded: Place, changes: dict[str, Any]
) -> None:
    with (
        Client(guarded.url, security=guarded.security(**changes), timeout=5) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.models()


def test_what_protects_a_connection_must_be_whole(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="client certificate without its key"):
        Client("localhost:1", security=Security(certificate=tmp_path / "me.pem"))
    with pytest.raises(MachineError, match=r"ca\.pem: cannot be read"):
        Client("localhost:1", security=Security(ca=tmp_path / "ca.pem"))
    with (
        Client("localhost:1", security=Security(token=tmp_path / "token")) as client,
        pytest.raises(MachineError, match="token: no token"),
    ):
        client.models()


def test_a_token_never_travels_in_clear_over_a_network(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a token would travel in clear"):
        Client("triton.example:8001", security=Security(token=tmp_path / "token"))
