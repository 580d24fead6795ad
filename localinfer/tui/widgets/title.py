"""The line at the top: which model, how small, and what computes it."""

from typing import TYPE_CHECKING

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from localinfer.text import one_line

if TYPE_CHECKING:
    from localinfer.engine.protocol import EngineInfo


class TitleLine(Widget):
    """The model's name, then its bits and backend once they are known."""

    info: "reactive[EngineInfo | None]" = reactive(None)

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def render(self) -> Content:
        return Content.assemble(
            Content.styled(one_line(self._model, 60), "bold"), Content.styled(self._where(), "$foreground 60%")
        )

    def _where(self) -> str:
        if self.info is None:
            return ""
        threads = f"{self.info.threads} thread" + "s" * (self.info.threads != 1)
        computes = " ".join(dict.fromkeys((self.info.backend, self.info.isa)))
        bits = () if self._model.endswith(f":{self.info.bits}") else (self.info.bits,)
        kept = " and ".join(map(str, sorted({self.info.kv_bits, *self.info.kv_layers})))
        parts = (*bits, computes, threads, f"KV {kept} bit")
        return "".join(f"  ·  {one_line(part, 30)}" for part in parts)
