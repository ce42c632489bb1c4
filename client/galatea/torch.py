"""Fresh images for PyTorch's ``DataLoader``. Needs torch, which galatea does not bring."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from galatea.training import Batch, Synthesis

__all__ = ["SyntheticDataset"]

Item = dict[str, torch.Tensor]

MOST_WORKERS = 1024  # of one DataLoader


class SyntheticDataset(IterableDataset[Any]):
    """Images that a training makes as it goes: new ones in each epoch, the same in each run.

    Each worker of each rank makes its own share; together they make every image of an epoch once.
    Every pass over the data set is the next epoch. In data-parallel training give each rank as many
    batches: `n` a multiple of ``batch_size`` × ranks × workers.

    Args:
        name: the model.
        n: images an epoch, of all ranks and workers together; None: one endless epoch.
        batch_size: images that are asked for at once, and yielded at once if `batched`.
        seed: of the first image of epoch 0.
        labels: see :meth:`galatea.Client.sample`.
        conditions: other inputs of the model, one value for all.
        batched: yield whole batches, for ``DataLoader(dataset, batch_size=None)``: much cheaper
            than collating single images again.
        transform: called with what is yielded.
        rank, world_size: of this process; by default those of ``torch.distributed``, or of the
            environment that torchrun sets.
        url: of the server, or of several.
        options: of :class:`galatea.Client`.

    Yields:
        A dictionary of tensors: ``image`` [C, H, W], ``seed`` and, where there are, ``mask``
        uint8 [1, H, W], ``label`` and other conditions; with a batch in front if `batched`. Images
        have the dtype of the model's card, mostly uint8.

    Raises:
        InvalidInput: `n`, `batch_size` or the rank is none. Other errors come with the first item:
            see :meth:`galatea.Client.stream`.
    """

    def __init__(
        self,
        name: str,
        n: int | None = None,
        *,
        batch_size: int = 32,
        batched: bool = False,
        transform: Callable[[Item], Any] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        **synthesis: Any,
    ) -> None:
        super().__init__()
        self._synthesis = Synthesis(name, n, batch_size, **synthesis)
        self._batched, self._transform = batched, transform
        self._rank, self._world = _place(rank, world_size)
        # Workers may be new processes in each epoch, so the epoch that each begins next is kept in
        # memory that all of them share.
        self._epochs = torch.zeros(MOST_WORKERS, dtype=torch.int64)
        self._epochs.share_memory_()  # type: ignore[no-untyped-call] # torch types it not

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass epoch `epoch`, to go on with a training that was interrupted."""
        self._epochs.fill_(epoch)

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        epoch = 0 if self._synthesis.n is None else int(self._epochs[worker])
        self._epochs[worker] += 1
        shard = (self._rank * workers + worker, self._world * workers)
        for batch in self._synthesis.batches(epoch, shard):
            tensors = _tensors(batch)
            if self._batched:
                yield self._transformed(tensors)
            else:
                for i in range(len(tensors["seed"])):
                    yield self._transformed({name: value[i] for name, value in tensors.items()})

    def _transformed(self, item: Item) -> Any:
        return item if self._transform is None else self._transform(item)


def _tensors(batch: Batch) -> Item:
    """Channels first, as networks of PyTorch take them; arrays are not copied."""
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    for name in ("image", "mask"):
        if name in tensors:
            tensors[name] = tensors[name].permute(0, 3, 1, 2)
    return tensors


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = torch.distributed
    if rank is None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if rank is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return rank, world_size or rank + 1
