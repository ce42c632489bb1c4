"""The beginnings of a family, from the names and shapes of a checkpoint.

Written are a file of the family, the facts of its card, and a script that makes a golden case with
upstream's own code. What only a reader of the paper knows is marked with TODO.
"""

from __future__ import annotations

import json
import keyword
import re
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from galatea.errors import ExportError, InvalidInput, MachineError
from galatea_exporter.checkpoint import Checkpoint, read_checkpoint
from galatea_exporter.family import families, recognising

__all__ = ["scaffold"]

NAME = re.compile(r"[a-z][a-z0-9_]*")
LISTED = 40  # tensors in the docstring

FAMILY = '''\
"""TODO: what it generates, and at what size.

Architecture: TODO paper (arXiv:…), in the layout of TODO repository. Written from the description
of the network and from the names and shapes in its checkpoints:

{tensors}
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

{card}from galatea_exporter.assembly import {assemble}
from galatea_exporter.checkpoint import State, load_strictly
from galatea_exporter.family import Family, Options, random_weights, register
from galatea_exporter.stages import StagedGenerator


class Generator(nn.Module):
    """TODO: {takes} to an image; its attributes have the names of the checkpoint."""

    def forward(self, {input}: Tensor) -> Tensor:
        """{input} float32 [N, …] → image float32 [N, C, H, W]."""
        raise NotImplementedError


@register
class {title}(Family):
    """TODO: which sizes are read from the checkpoint's shapes."""

    name = "{name}"
    title = "TODO"
    source = "TODO arXiv:…; owner/repository"
    containers = {containers}

    def recognises(self, state: State) -> bool:
        return {first} in state and {last} in state

    def build(self, state: State, options: Options, path: Path) -> StagedGenerator:
        generator = Generator()
        load_strictly(generator, state, path, self.name)
{build}

    def example(self, published: bool = False) -> dict[str, Tensor]:
        return random_weights(Generator())  # TODO small widths, unless `published`
'''
FROM_LATENT = """\
        channels = 1  # TODO
        return from_latent(
            generator,
            latent=100,  # TODO
            image=(channels, 128, 128),  # TODO
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
        )"""
FROM_SOURCE = """\
        channels = 1  # TODO
        return from_source(
            generator,
            source=("intensity",),  # TODO what each channel of the picture means
            size=(256, 256),  # TODO
            span=(-1.0, 1.0),  # TODO what the network takes for black and white
            preparation=Preparation(size=(256, 256)),  # TODO upstream's
            channels=options.channel_names(channels),
            pixels=options.pixels(channels),
        )"""
CARD = """\
title = "TODO"
description = "TODO"
modality = "TODO"
organ = "TODO"
training_dataset = "TODO"
licence = "TODO"  # SPDX
doi = ""
citation = ""
source = "TODO https://…"
"""
GOLDEN = '''\
"""Makes the golden case ``{name}`` with upstream's own code, which stays where it is.

Run it where upstream's generator can be imported::

    python make_golden.py CHECKPOINT FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

# TODO from upstream import Generator

checkpoint, folder = Path(sys.argv[1]), Path(sys.argv[2]) / "{name}"
folder.mkdir(parents=True)
torch.manual_seed(0)
generator = Generator()  # TODO its arguments, and the key of the state dict below
generator.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
generator.eval()
inputs = {inputs}  # TODO the shape
with torch.no_grad():
    image = generator(*inputs.values())
shutil.copy(checkpoint, folder / f"checkpoint{{checkpoint.suffix}}")
np.savez(folder / "inputs.npz", **{{name: tensor.numpy() for name, tensor in inputs.items()}})
np.savez(folder / "expected.npz", image=image.numpy())
meta = {{"family": "{name}", "upstream": "TODO owner/repository"}}
(folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\\n")
'''


def scaffold(name: str, checkpoint: Path, tree: Path, *, translates: bool) -> list[Path]:
    """Writes the three files.

    Args:
        name: of the family, a Python name.
        tree: galatea's source tree.
        translates: it starts from a picture.

    Raises:
        InvalidInput: the name is taken or none, or `tree` is no source tree.
        ExportError: the checkpoint is unsafe, damaged or has no state dict.
        MachineError: a file is there, or cannot be written.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidInput(f"{name!r} is no name of a family", "use a-z, 0-9 and _")
    package = tree / "exporter" / "galatea_exporter" / "families"
    if not package.is_dir():
        raise InvalidInput(f"{tree} is no source tree of galatea", "clone it, and name it: --tree")
    read = read_checkpoint(checkpoint)
    taken = [*recognising(read), *({name} & set(families()))]
    if taken:
        raise InvalidInput(
            f"the family {taken[0]} is there already",
            f"try: galatea export {taken[0]} {checkpoint} --name {name.replace('_', '-')}",
        )
    container, state = _state_dict(read)
    names = list(state)
    family = FAMILY.format(
        name=name,
        title="".join(part.capitalize() for part in name.split("_")),
        tensors=_listed(state),
        containers=f"({json.dumps(container)},)" if container else "()",
        first=json.dumps(names[0]),
        last=json.dumps(names[-1]),
        assemble="from_source" if translates else "from_latent",
        card="from galatea.card import Preparation\n" if translates else "",
        build=FROM_SOURCE if translates else FROM_LATENT,
        takes="a picture" if translates else "a latent vector",
        input="source" if translates else "latent",
    )
    key, shape = ("image", (2, 1, 256, 256)) if translates else ("z", (2, 100))
    golden = GOLDEN.format(name=name, inputs=f'{{"{key}": torch.randn{shape}}}')
    files = {
        package / f"{name}.py": family,
        tree / "examples" / name / "card.toml": CARD,
        tree / "examples" / name / "make_golden.py": golden,
    }
    for path in files:
        if path.exists():
            raise MachineError(f"{path} is there already", "remove it, or choose another name")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise MachineError(
            f"{path}: {error.strerror}", "choose a folder you may write to"
        ) from error
    return list(files)


def _state_dict(checkpoint: Checkpoint) -> tuple[str, dict[str, Tensor]]:
    """The key of the state dict with the most tensors, "" for a bare one; and what is in it.

    Raises:
        ExportError: there is none.
    """
    content = checkpoint.content
    found: dict[str, dict[str, Tensor]] = {}
    for key in ("", *(content if isinstance(content, dict) else ())):
        with suppress(ExportError):
            found[key] = checkpoint.state((key,) if key else ())[0]
    if not found:
        checkpoint.state()  # which says what is there instead
    container = max(found, key=lambda key: len(found[key]))
    return container, found[container]


def _listed(state: dict[str, Tensor]) -> str:
    """Names and shapes, as lines of a docstring."""
    lines = [f"    {name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    more = len(lines) - LISTED
    return "\n".join([*lines[:LISTED], *([f"    … and {more} more"] if more > 0 else [])])
