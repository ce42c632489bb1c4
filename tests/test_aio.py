"""The client for asyncio gives the same as the other one, and waits for nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest

from galatea import AsyncClient, Client, InvalidInput, ModelUnavailable
from galatea_server.server import EmbeddedServer

T = TypeVar("T")


def run(server: EmbeddedServer, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        async with AsyncClient(server.grpc_url) as client:
            return await work(client)

    return asyncio.run(main())


def test_it_gives_what_the_other_client_gives(server: EmbeddedServer, client: Client) -> None:
    async def work(twin: AsyncClient) -> None:
        assert await twin.models() == client.models()
        assert await twin.model("masses") == client.model("masses")
        assert await twin.search("masses") == client.search("masses")
        seen: list[int] = []
        samples = await twin.sample("masses", 20, seed=3, labels="benign", progress=seen.append)
        expected = client.sample("masses", 20, seed=3, labels="benign")
        assert samples.images.tobytes() == expected.images.tobytes()
        assert sum(seen) == 20
        batches = [batch async for batch in twin.stream("masses", 20, seed=3, labels="benign")]
        assert b"".join(batch.images.tobytes() for batch in batches) == expected.images.tobytes()

        latents = await twin.latent("masses", [3, 4])
        again = await twin.synthesise("masses", latents, labels="benign")
        assert again.images.tobytes() == expected.images[:2].tobytes()

    run(server, work)


def test_pictures_are_translated(server: EmbeddedServer, client: Client) -> None:
    scans = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)

    async def work(twin: AsyncClient) -> None:
        samples = await twin.translate("cyclegan_junyanz", scans)
        expected = client.translate("cyclegan_junyanz", scans)
        assert samples.images.tobytes() == expected.images.tobytes()
        batches = [batch async for batch in twin.translate_stream("cyclegan_junyanz", scans)]
        assert batches[0].images.tobytes() == expected.images.tobytes()

    run(server, work)


def test_calls_of_one_loop_run_side_by_side(server: EmbeddedServer) -> None:
    async def work(client: AsyncClient) -> list[bytes]:
        made = await asyncio.gather(*[client.sample("masses", 8, seed=1) for _ in range(20)])
        return [samples.images.tobytes() for samples in made]

    assert len(set(run(server, work))) == 1


def test_the_loop_goes_on_while_images_are_made(server: EmbeddedServer) -> None:
    async def work(client: AsyncClient) -> float:
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                begin = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - begin)

        ticking = asyncio.create_task(tick())
        begin = time.perf_counter()
        await client.sample("phantom", 1500, seed=0)
        ticking.cancel()
        return longest / (time.perf_counter() - begin)

    assert run(server, work) < 0.5


def test_a_stream_is_left_by_breaking_and_by_cancelling(server: EmbeddedServer) -> None:
    async def work(client: AsyncClient) -> None:
        stream: AsyncIterator[Any] = client.stream("masses", seed=0)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined] # a generator behind the iterator

        async def endless() -> None:
            async for _ in client.stream("masses", seed=0):
                pass

        for moment in range(60):  # also as an answer comes
            task = asyncio.create_task(endless())
            await asyncio.sleep(moment / 2000)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            assert done
            assert task.cancelled()
        assert len(await client.sample("masses", 4)) == 4

    run(server, work)


def test_mistakes_are_the_same_errors(server: EmbeddedServer) -> None:
    async def work(client: AsyncClient) -> None:
        with pytest.raises(InvalidInput, match="n is 0"):
            await client.sample("masses", 0)
        with pytest.raises(ModelUnavailable, match="did you mean 'masses'"):
            await anext(client.stream("mases"))

    run(server, work)
