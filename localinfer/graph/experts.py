"""Experts that do not all fit into memory: packed for the kernels in a file of their own, and read from there.

The file is named by what it is made from, is made once, and is there whole or not at all. It can always be made again.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localinfer import native
from localinfer.errors import DoesNotFit, NotSupported, size
from localinfer.formats.durable import sync, write_failed
from localinfer.graph.memory import PAGE
from localinfer.graph.ops import Expert, Mixture
from localinfer.graph.packing import Packer
from localinfer.graph.weights import Checkpoint

MAGIC = b"LIEXPRT1"
"""To be changed with the way in which panels lie."""
SUFFIX = ".experts"
LEFT_FREE = 1 << 30
"""Bytes that the disk keeps when a file is made."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the file lies, and the bytes of memory that experts may take; less than those of a layer: these."""

    folder: Path
    nbytes: int
    on_progress: OnProgress | None = None
    """Told (bytes packed, of all) while the file is made."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """A mixture whose experts a pool has."""

    layer: int
    experts: list[tuple[native.Weight, native.Weight]]
    """Without values."""
    nbytes: int
    """Of each in the file."""


def mixtures_of(checkpoint: Checkpoint) -> list[Mixture]:
    """The operations with experts, in the order in which a step runs them."""
    return [op for op in checkpoint.graph.ops if isinstance(op, Mixture)]


def matrices(mixtures: Sequence[Mixture]) -> Iterator[str]:
    """The names of what their files hold."""
    return (linear.name for op in mixtures for one in op.experts for linear in one.linears())


class ExpertFile:
    """The experts of `packer`'s checkpoint in a file, made if it is not there. Raises `NotSupported` where the experts
    of a layer are quantized differently, `DoesNotFit` where the disk has no room, and what reading weights raises."""

    def __init__(self, packer: Packer, slots: Slots) -> None:
        self._packer, self._checkpoint = packer, packer.checkpoint
        self._mixtures = mixtures_of(self._checkpoint)
        self.layers = list[Pooled]()
        self._first = list[tuple[native.Weight, native.Weight]]()
        for number, op in enumerate(self._mixtures):
            self._require_alike(op)
            pair = self._pack(op.experts[0])
            bare = pair[0].without_values(), pair[1].without_values()
            room = -(-(pair[0].nbytes + pair[1].nbytes) // PAGE) * PAGE
            self.layers.append(Pooled(number, [bare] * len(op.experts), room))
            self._first.append(pair)
        made_of = json.dumps([MAGIC.decode(), self._checkpoint.identity, packer.activation_bits])
        self._name = hashlib.sha256(made_of.encode()).hexdigest()[:32]
        self.path = slots.folder / f"{self._name}{SUFFIX}"
        self.made = not self._is_whole()
        """It was not there before."""
        if self.made:
            self._make(slots.on_progress or (lambda done, total: None))
        os.utime(self.path)
        self._first.clear()
        packer.total -= sum(map(self._checkpoint.stored_bytes, matrices(self._mixtures)))
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            places = [(self._begin(layer), len(layer.experts), layer.nbytes) for layer in self.layers]
            self.pool = native.ExpertPool(handle, str(self.path), places, slots.nbytes)
        finally:
            os.close(handle)

    def arguments(self, op: Mixture) -> dict[str, Any]:
        """What the native program is told of the experts of `op`."""
        layer = self.layers[self._mixtures.index(op)]
        return {"experts": layer.experts, "pool": self.pool, "pool_layer": layer.layer}

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return PAGE + sum(layer.nbytes * len(layer.experts) for layer in self.layers)

    def _begin(self, layer: Pooled) -> int:
        return PAGE + sum(one.nbytes * len(one.experts) for one in self.layers[: layer.layer])

    @property
    def _header(self) -> bytes:
        return (MAGIC + self._name.encode()).ljust(PAGE, b"\0")

    def _require_alike(self, op: Mixture) -> None:
        for part in range(len(op.experts[0].linears())):
            forms = {self._checkpoint.form(one.linears()[part].name) for one in op.experts}
            if len(forms) > 1:
                raise NotSupported(
                    f"experts like `{op.experts[0].linears()[part].name}` are quantized differently in one layer",
                    hint="use `--experts resident`, or quantize the original",
                )

    def _pack(self, expert: Expert) -> tuple[native.Weight, native.Weight]:
        inputs = self._packer.now(*expert.inputs(), interleave=expert.gate is not None)
        return inputs, self._packer.now(expert.down)

    def _is_whole(self) -> bool:
        """Of the right size, and the first expert of each layer is what it would be now."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(handle).st_size != self.nbytes or os.pread(handle, PAGE, 0) != self._header:
                return False
            for layer, (inputs, down) in zip(self.layers, self._first, strict=True):
                at = self._begin(layer)
                if not (inputs.equals(handle, at) and down.equals(handle, at + inputs.nbytes)):
                    return False
            return True
        except OSError:
            return False
        finally:
            os.close(handle)

    def _make(self, on_progress: OnProgress) -> None:
        """Beside its name, then renamed; one expert is in memory at a time."""
        folder, part = self.path.parent, self.path.with_name(f".{secrets.token_hex(8)}.tmp")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(folder, self.nbytes, self.path)
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, self._header, 0)
                os.truncate(handle, self.nbytes)
                done = 0
                for layer, op in zip(self.layers, self._mixtures, strict=True):
                    for at, expert in enumerate(op.experts):
                        inputs, down = self._pack(expert)
                        begin = self._begin(layer) + at * layer.nbytes
                        inputs.write(handle, begin)
                        down.write(handle, begin + inputs.nbytes)
                        done += layer.nbytes
                        on_progress(done, self.nbytes)
                os.fsync(handle)
            finally:
                os.close(handle)
            part.replace(self.path)
            sync(folder)
        except OSError as error:
            raise write_failed(self.path, self.nbytes, error) from error
        finally:
            part.unlink(missing_ok=True)


def _make_room(folder: Path, need: int, path: Path) -> None:
    """Delete the least recently used of these files until `need` bytes are free; who runs one keeps it open."""
    path.unlink(missing_ok=True)
    others = sorted(folder.glob(f"*{SUFFIX}"), key=_last_used)
    while (free := _free(folder)) < need + LEFT_FREE:
        if not others:
            raise DoesNotFit(
                f"the packed experts take {size(need)} in {folder}, where {size(free)} is free and "
                f"{size(LEFT_FREE)} is to stay so",
                hint="free some space, or use a smaller model; `localinfer cache prune` deletes what can be made again",
            )
        with suppress(OSError):
            others.pop(0).unlink()


def _last_used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
