"""What one writes with tritonclient alone for a stream of images in the caller's own arrays."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray

from wire_model import BATCH, SHAPE

WINDOW = 5  # requests on their way: of this size, as many as galatea's client allows itself

Batches = Iterator[NDArray[np.uint8]]
Make = Callable[[int, int], Batches]  # first seed, batches → batches


@contextmanager
def over_grpc(url: str, model: str) -> Iterator[Make]:
    """Images in messages."""
    with triton.InferenceServerClient(url) as client:
        outputs = [triton.InferRequestedOutput("image")]

        def make(seed: int, batches: int) -> Batches:
            waiting: deque[SimpleQueue[Any]] = deque()
            for k in range(batches):
                waiting.append(_send(client, model, seed + k * BATCH, outputs))
                if len(waiting) == WINDOW:
                    yield _answer(waiting.popleft()).as_numpy("image").copy()
            while waiting:
                yield _answer(waiting.popleft()).as_numpy("image").copy()

        yield make


@contextmanager
def over_shared_memory(url: str, model: str) -> Iterator[Make]:
    """Images in system shared memory, a region for each request that is on its way."""
    size = BATCH * int(np.prod(SHAPE))
    with triton.InferenceServerClient(url) as client, ExitStack() as stack:
        regions = []
        for k in range(WINDOW):
            name = f"plain-{os.getpid()}-{k}"
            region = shm.create_shared_memory_region(name, name, size)
            stack.callback(shm.destroy_shared_memory_region, region)
            client.register_system_shared_memory(name, f"/{name}", size)
            stack.callback(client.unregister_system_shared_memory, name)
            output = triton.InferRequestedOutput("image")
            output.set_shared_memory(name, size)
            regions.append((region, [output]))

        def make(seed: int, batches: int) -> Batches:
            free = deque(regions)
            waiting: deque[tuple[SimpleQueue[Any], Any]] = deque()

            def oldest() -> NDArray[np.uint8]:
                reply, place = waiting.popleft()
                _answer(reply)
                view = shm.get_contents_as_numpy(place[0], np.uint8, [BATCH, *SHAPE])
                images: NDArray[np.uint8] = view.copy()
                free.append(place)
                return images

            for k in range(batches):
                place = free.popleft()
                waiting.append((_send(client, model, seed + k * BATCH, place[1]), place))
                if not free:
                    yield oldest()
            while waiting:
                yield oldest()

        yield make


def _send(client: Any, model: str, seed: int, outputs: list[Any]) -> SimpleQueue[Any]:
    seeds = np.arange(seed, seed + BATCH, dtype=np.int64)[:, None]
    tensor = triton.InferInput("seed", seeds.shape, "INT64")
    tensor.set_data_from_numpy(seeds)
    reply: SimpleQueue[Any] = SimpleQueue()
    client.async_infer(
        model, [tensor], lambda result, error: reply.put((result, error)), outputs=outputs
    )
    return reply


def _answer(reply: SimpleQueue[Any]) -> Any:
    result, error = reply.get()
    if error is not None:
        raise error
    return result
