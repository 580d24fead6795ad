"""What a sequence keeps for an operation, from step to step."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KvState:
    """Keys and values that a sequence keeps at each of its positions; `window` > 0: only the last so many are read."""

    kv_heads: int
    head_dim: int
    window: int

    @property
    def bytes_per_sequence(self) -> int:
        return 0

    @property
    def bytes_per_row(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class SlotState:
    """So many float32 numbers that a sequence keeps, whatever its length: every row changes them."""

    values: int
    row: int
    """Numbers that are kept of a drafted row until it is known to be right."""

    @property
    def bytes_per_row(self) -> int:
        return 4 * self.row

    @property
    def bytes_per_sequence(self) -> int:
        return 4 * self.values


State = KvState | SlotState
"""What a sequence keeps for one operation, from step to step."""
