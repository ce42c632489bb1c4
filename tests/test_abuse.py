"""Ten thousand requests that make no sense: typed errors only, and a server that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from galatea import Client, GalateaError
from galatea._wire.endpoint import Call, Endpoint
from galatea._wire.messages import DTYPES
from galatea._wire.security import Security
from galatea_server.server import EmbeddedServer

CLIENT, SERVER = 3000, 7000  # requests
GROWTH = 32 << 20  # bytes that a server may keep: arenas of its allocators, not what it was sent


def abuse(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


number = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 2**64, 10**400, 0, -1])
odd = number | st.text() | st.none() | st.booleans() | st.binary()
anything = st.recursive(
    odd, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
# A few images or far more than there is room for; thousands would only take long.
sizes = anything.filter(lambda n: not isinstance(n, int) or not 4 < n < 10**12)


def used(server: EmbeddedServer) -> int:
    """Bytes of memory of tritonserver and the processes below it."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # ended meanwhile
            lines = [line.split() for line in path.read_text().splitlines()]
            facts = {line[0]: line[1] for line in lines if len(line) > 1}
            process = int(path.parent.name)
            children.setdefault(int(facts["PPid:"]), []).append(process)
            resident[process] = int(facts.get("VmRSS:", 0)) << 10

    def of(process: int) -> int:
        return resident[process] + sum(map(of, children.get(process, [])))

    return of(server.pid)


@pytest.fixture(scope="module")
def unharmed(server: EmbeddedServer) -> Iterator[Callable[[], Client]]:
    """Opens clients of a server that must be as it was at the end."""
    with Client(server.grpc_url) as client:
        expected = client.sample("masses", 300, seed=1).images.tobytes()
        before = used(server)
        yield lambda: Client(server.grpc_url, patience=0)
        assert "masses" in [card.name for card in client.models()]
        assert client.sample("masses", 300, seed=1).images.tobytes() == expected
        assert used(server) - before < GROWTH


def test_the_client_refuses_arguments_with_errors_of_its_own(
    unharmed: Callable[[], Client],
) -> None:
    with unharmed() as client:

        @abuse(CLIENT)
        @given(
            st.just("masses") | st.just("masses.noise") | odd,
            sizes,
            st.fixed_dictionaries(
                {}, optional={"seed": anything, "labels": anything, "label": anything,
                              "deadline": odd, "truncation": odd},
            ),
        )  # fmt: skip
        def call(name: Any, n: Any, arguments: dict[str, Any]) -> None:
            with suppress(GalateaError):
                client.sample(name, n, **arguments)

        call()


tensors = arrays.arrays(
    st.sampled_from(list(DTYPES.values())),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)


def test_the_server_refuses_requests_and_lives(
    server: EmbeddedServer, unharmed: Callable[[], Client]
) -> None:
    endpoint = Endpoint(server.grpc_url, Security(), 60.0, "grpc")
    names = st.sampled_from(["seed", "label", "image", "mask", "latent"]) | st.text()

    @abuse(SERVER)
    @given(
        st.sampled_from(["masses", "masses.noise", "masses.synthesis"]) | st.text(),
        st.sampled_from(["1", "", "2", "-1", "x"]),
        st.dictionaries(names, tensors, max_size=3),
        st.lists(names, max_size=3),
    )
    def call(model: str, version: str, inputs: dict[str, Any], outputs: list[str]) -> None:
        with suppress(GalateaError):
            endpoint.infer(Call(model, version, inputs, dict.fromkeys(outputs))).result()

    try:
        call()
    finally:
        endpoint.close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_numbers_that_are_none_are_refused_where_the_card_has_a_range(
    client: Client, value: float
) -> None:
    with pytest.raises(GalateaError, match="truncation"):
        client.sample("stylegan2", 1, truncation=value)
