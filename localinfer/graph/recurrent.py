"""Operations whose state every row changes."""

from dataclasses import dataclass
from itertools import chain

from localinfer.graph.facts import DepthwiseConv, Facts, Linear, Norm
from localinfer.graph.states import SlotState


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConv(Facts):
    """x = x + out_proj(c * conv(b * u)); b, c and u are the three parts of in_proj(norm(x)) (LFM2; Liquid AI, 2025)."""

    norm: Norm
    in_proj: Linear
    conv: DepthwiseConv
    out_proj: Linear

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return (self.in_proj,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,)

    def input_norm(self) -> Norm:
        return self.norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return self.conv.vectors()

    def state(self) -> SlotState:
        return SlotState((self.conv.length - 1) * self.conv.channels, self.conv.channels)

    def not_on_cards(self) -> str:
        return "recurrent layers"

    def width(self) -> int:
        return 4 * self.conv.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaNet(Facts):
    """x = x + out_proj(out_norm(o) * silu(z)), o by the gated delta rule (Yang et al., 2025); rows of `inputs` are q,
    k, v and z, those of `gates` b and a, of norm(x). With `by_key_head` the rows of each lie key head by key head.

    q, k and v go through a causal convolution of each column and SiLU; q and k of a head are divided by their length, q
    also by sqrt(key_dim). Value head h has a state S [key_dim, value_dim] and the key head h // (value_heads / heads):
    S = decay * S; S = S + k (beta * (v - k S))'; o = q S. beta = beta_scale * sigmoid(b); decay = exp(-exp(`rates`) *
    softplus(a + `dt_bias`)).
    """

    norm: Norm
    inputs: tuple[Linear, ...]
    gates: tuple[Linear, ...]
    convs: tuple[DepthwiseConv, ...]
    """That of q, k and v together, or one of each."""
    rates: str
    dt_bias: str
    out_norm: Norm
    out_proj: Linear
    heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    beta_scale: float = 1.0
    by_key_head: bool = False

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return self.inputs, self.gates, (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm, self.out_norm)

    def unquantized(self) -> tuple[Linear, ...]:
        return self.gates

    def input_norm(self) -> Norm:
        return self.norm

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        taps = chain(*(conv.vectors() for conv in self.convs))
        return (*taps, (self.rates, (self.value_heads,)), (self.dt_bias, (self.value_heads,)))

    def state(self) -> SlotState:
        rows = self.value_heads * self.value_dim
        matrices = rows * self.key_dim
        kept = self.channels + self.heads * self.key_dim + rows + self.value_heads
        return SlotState((self.convs[0].length - 1) * self.channels + matrices, kept)

    def not_on_cards(self) -> str:
        return "recurrent layers"

    def width(self) -> int:
        return self.channels + 2 * self.out_proj.cols + 2 * self.value_heads

    @property
    def channels(self) -> int:
        """Columns of q, k and v together."""
        return 2 * self.heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba2(Facts):
    """x = x + out_proj(y), y made by a selective state space (Dao and Gu, 2024); rows of `inputs` are C, B, u and z,
    those of `dt` the steps, of norm(x), times `scales` (of z, u, B, C and dt).

    u, B and C go through a causal convolution of each column and SiLU; `conv` has their columns in that order. Head h
    has a state S [state, head_dim] and the group h // (heads / groups): d = softplus(dt + `dt_bias`) within `dt_limit`;
    S = exp(-exp(`rates`) * d) * S + B (d * u)'; o = C S + `skip` * u. y = norm(o * silu(z)) * `out_scale`, the norm one
    of each of `norm_groups` groups of columns, or 0: none; with `norm_before_gate` norm(o) * silu(z). `beside`: as in
    `GatedMLP`.
    """

    norm: Norm
    inputs: tuple[Linear, ...]
    dt: Linear
    conv: DepthwiseConv
    rates: str
    dt_bias: str
    skip: str
    out_norm: Norm | None
    out_proj: Linear
    heads: int
    groups: int
    state_dim: int
    head_dim: int
    dt_limit: tuple[float, float]
    norm_groups: int = 0
    norm_before_gate: bool = False
    scales: tuple[float, ...] = (1.0,) * 5
    out_scale: float = 1.0
    beside: bool = False

    def fused(self) -> tuple[tuple[Linear, ...], ...]:
        return self.inputs, (self.dt,), (self.out_proj,)

    def norms(self) -> tuple[Norm, ...]:
        return (self.norm,) if self.out_norm is None else (self.norm, self.out_norm)

    def unquantized(self) -> tuple[Linear, ...]:
        return (self.dt,)

    def input_norm(self) -> Norm:
        return self.norm

    def reads_before(self) -> bool:
        return self.beside

    def vectors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return (*self.conv.vectors(), *((name, (self.heads,)) for name in (self.rates, self.dt_bias, self.skip)))

    def state(self) -> SlotState:
        values = self.heads * self.head_dim
        kept = self.conv.channels + self.groups * self.state_dim + values + self.heads
        return SlotState((self.conv.length - 1) * self.conv.channels + values * self.state_dim, kept)

    def not_on_cards(self) -> str:
        return "recurrent layers"

    def width(self) -> int:
        return self.conv.channels + 2 * self.out_proj.cols + self.heads
