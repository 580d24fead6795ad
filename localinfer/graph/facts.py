"""What operations are made of, and what every one of them says of itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from localinfer.graph.rope import Rope
from localinfer.graph.states import State


@dataclass(frozen=True, slots=True)
class Linear:
    """The matrix `name`.weight [rows, cols], maybe stored quantized, and with `bias` the vector `name`.bias [rows]."""

    name: str
    rows: int
    cols: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * (w + offset) * scale, w the vector `name`.weight [size]. Gemma's
    offset is 1. Without a name there is no w: x / sqrt(mean(x^2) + eps).

    `centered` makes it LayerNorm: x - mean(x) for x. With `bias` `name`.bias [size] is added.
    """

    name: str
    size: int
    eps: float
    offset: float = 0.0
    centered: bool = False
    bias: bool = False
    scale: float = 1.0

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors with their shapes."""
        if not self.name:
            return ()
        weight = (f"{self.name}.weight", (self.size,))
        return (weight, (f"{self.name}.bias", (self.size,))) if self.bias else (weight,)


@dataclass(frozen=True, slots=True)
class DepthwiseConv:
    """A causal convolution of each column: `name`.weight [channels, 1, length], with `bias` `name`.bias [channels].

    Row t of the result is the sum over j of weight[:, 0, j] * x[t - length + 1 + j]; rows before the text are zeros.
    """

    name: str
    channels: int
    length: int
    bias: bool = False

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors, which no quantizer touches, with their shapes."""
        taps = (f"{self.name}.weight", (self.channels, 1, self.length))
        return (taps, (f"{self.name}.bias", (self.channels,))) if self.bias else (taps,)


def numbers(linears: Iterable[Linear]) -> int:
    return sum(linear.rows * linear.cols for linear in linears)


class Facts:
    """What every operation says of itself; an operation overrides what is otherwise."""

    __slots__ = ()

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        """Its matrices in the order of use, those together that read one input and are packed as one."""
        raise NotImplementedError

    def linears(self) -> tuple[Linear, ...]:
        """Its matrices in the order of use."""
        return tuple(chain(*self.fused()))

    def norms(self) -> tuple[Norm, ...]:
        """Its norms that have weights, in the order of use."""
        return ()

    def gathered(self) -> tuple[Linear, ...]:
        """Those of its matrices of which a token reads one row, and nobody reads more: they may stay in their file."""
        return ()

    def unquantized(self) -> tuple[Linear, ...]:
        """Those of its matrices that stay floats in a quantized model: small ones that decide much."""
        return ()

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Its tensors that are neither matrices nor norms nor biases of matrices, with their shapes."""
        return ()

    def input_norm(self) -> Norm | None:
        """The norm of the residual stream that it reads."""
        return None

    def reads_before(self) -> bool:
        """Whether it reads the residual stream that the operation before it reads."""
        return False

    def output_norm(self) -> Norm | None:
        """The norm of what it adds to the residual stream."""
        return None

    def joint_norm(self) -> Norm | None:
        """The norm of the sum of what it adds and what the operation before it adds, which reads the same stream."""
        return None

    def stream_scale(self) -> str:
        """The tensor [1] that the residual stream is multiplied by once the operation has added to it; "": there is
        none."""
        return ""

    def not_on_cards(self) -> str:
        """What of it cards have no kernels for, or ""."""
        return ""

    def borrows(self) -> bool:
        """Whether it reads keys and values that another operation keeps."""
        return False

    def state(self) -> State | None:
        """What a sequence keeps for it from step to step."""
        return None

    def ropes(self) -> tuple[Rope, ...]:
        """The rotations of its heads."""
        return ()

    def traffic(self, rows: int) -> tuple[tuple[Linear, float], ...]:
        """Its matrices, each with the part of it that a step of so many rows reads."""
        return tuple((linear, 1.0) for linear in self.linears())

    def flops(self, rows: int) -> int:
        """Multiplications and additions of its matrices in a step of so many rows."""
        return 2 * rows * numbers(self.linears())

    def width(self) -> int:
        """Values of a row that it holds at once, beside the residual stream."""
        return 0
