"""A Hugging Face directory as the graph sees it: every tensor present, of the right shape, finite when read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.checkpoint_files import StoredTensor, listed, open_tensors
from localinfer.formats.json_files import read_object
from localinfer.formats.quantization_said import quantization_said
from localinfer.graph.affine import Minima
from localinfer.graph.facts import Linear
from localinfer.graph.fused import told_apart
from localinfer.graph.graph import Graph
from localinfer.graph.layouts import layout_of
from localinfer.graph.names import AHEAD, EMBEDDING, HEAD, ahead_alone, graph_names, harmless, nextn_as_ahead, notes_of
from localinfer.graph.registry import family_for
from localinfer.graph.scheme import read_scheme
from localinfer.graph.spec import ModelSpec
from localinfer.graph.stacked import unstacked
from localinfer.graph.stored import Form, StoredLinear
from localinfer.graph.tensors import AGAIN, FLOATS, Tensors


class Checkpoint:
    """A model on disk. Opening reads config.json and the headers of the weights, and compares them; no weights.

    Raises `NotFound` (no such model), `NotSupported` (architecture, quantization, dtype) and `Corrupt` (a config
    field, a tensor missing or of another shape). A tensor that the config does not describe is passed over, and said.
    """

    def __init__(self, path: Path, *, ahead: bool = False, assistant: bool = False) -> None:
        """`ahead`: the head that guesses tokens ahead, which the model must have (`has_ahead`). `assistant`: a model
        that only guesses for another one may be opened."""
        self.path = path
        self.config: dict[str, Any] = read_object(path / "config.json")
        family = family_for(self.config.get("model_type"), assistant=assistant)
        if ahead:
            assert family.ahead is not None
            family = replace(family, graph=family.ahead, tensor_name=ahead_alone(family.tensor_name))
        self.spec: ModelSpec = family.spec(self.config)
        said = quantization_said(path, self.config)
        self.scheme = read_scheme(said)
        """What is announced of quantization."""
        files = open_tensors(path)
        self.stored: Mapping[str, StoredTensor] = files
        if family.ahead is not None:
            self.stored = nextn_as_ahead(files, self.spec.layers)
        """All tensors by the names they are stored under, or, of a part of one, would be."""
        if self.spec.mixture is not None:
            linears = family.graph(self.spec).linears()
            self.stored = unstacked(self.stored, family.stacked, self.spec.mixture.experts, linears)
        if family.fused:
            self.stored = told_apart(self.stored, family.fused, family.graph(self.spec).linears())
        self.names = graph_names(self.stored, family.tensor_name, tied=self.spec.tied)
        """The graph's name of each stored tensor; None for what is no part of it."""
        self._tensors = Tensors(self._placed())
        self._notes = [*files.notes, *([] if ahead else notes_of(self.names, runs_ahead=family.ahead is not None))]
        self.has_ahead = family.ahead is not None and any(name.startswith(AHEAD) for name in self.stored)
        """Whether it brings a head that guesses tokens ahead, which we know how to run."""
        self.own_head: bool = self.spec.tied and self._has_own_head()
        """config.json says that the head is the embedding's matrix, but another one is stored, and used."""
        if self.own_head:
            self.spec = replace(self.spec, tied=False)
            self._notes.append(
                "config.json says that the head is the embedding's matrix, but another one is stored: that is used, as "
                "in transformers"
            )
        self.graph: Graph = family.graph(self.spec)
        self._identity = [self.config, *([] if said is None or said[0] == "config.json" else [dict(said[1])])]
        self._linears = {linear.name: linear for linear in self.graph.linears()}
        self._layouts = {name: layout_of(self._tensors, one, self.scheme) for name, one in self._linears.items()}
        for name, shape in self.graph.vectors():
            self._tensors.require(name, shape, FLOATS)
        self._pass_over_extra()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the graph uses, as stored."""
        return self._tensors.nbytes(self._tensors.used)

    @property
    def identity(self) -> str:
        """A hash of the configuration and of the weight files' names, sizes and times: another model, another hash."""
        files = {tensor.file for tensor in self._tensors.stored.values()}
        told = sorted((file.path.name, file.size, file.modified_ns) for file in files)
        return hashlib.sha256(json.dumps([*self._identity, told], sort_keys=True).encode()).hexdigest()[:32]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell of weights that were chosen among several, or run in another form than they are stored in."""
        notes = [*self._notes, *(layout.note for layout in self._layouts.values())]
        return tuple(dict.fromkeys(note for note in notes if note))

    def stored_bytes(self, name: str) -> int:
        """Bytes that the matrix `name` takes on disk, with its scales."""
        return self._tensors.nbytes(self._layouts[name].parts)

    def reading_bytes(self, name: str) -> int:
        """Bytes that exist at once, at worst, while the matrix `name` is read."""
        return self._layouts[name].copies * self.stored_bytes(name)

    def form(self, name: str) -> Form:
        """Of the matrix `name` as it runs, from the headers alone."""
        return self._layouts[name].form

    def has_minima(self, name: str) -> bool:
        """Whether the matrix `name` is stored with minima, which are no multiples of its scales."""
        return isinstance(self._layouts[name], Minima)

    @property
    def not_on_cards(self) -> str:
        """What cards have no kernels for, or ""."""
        forms = {layout.form for layout in self._layouts.values()}
        others = {form[2] for form in forms if len(form) == 3}
        lacking = {
            "weights in MXFP4": "mxfp4" in others,
            "weights with zero points or minima": bool(others),
            "weights of 5 bits": any(form[0] == 5 for form in forms),
        }
        return self.graph.not_on_cards or next((what for what, there in lacking.items() if there), "")

    def on_disk(self, name: str) -> tuple[StoredTensor, StoredTensor | None] | None:
        """Where the values and the scales of the matrix `name` lie, if they lie as the kernels take them; else None.

        Nobody has looked at the numbers yet: whoever reads them must refuse NaN and infinity, as `linear` does.
        """
        return self._layouts[name].on_disk()

    def in_file(self, linear: Linear) -> bool:
        """Whether the matrix stays in its file, and steps read rows of it."""
        return linear in self.graph.gathered and self.on_disk(linear.name) is not None

    def linear(self, name: str) -> StoredLinear:
        """The matrix `name` (without `.weight`) as the kernels take it. float16 and float32 are rounded to bfloat16."""
        return self._layouts[name].read()

    def matrix(self, name: str) -> NDArray[np.float32]:
        """The matrix `name` in float32 [rows, cols], as exact as it is stored; eight-bit floats as they run."""
        plain = self._tensors.dtype(f"{name}.weight") in FLOATS
        return self._tensors.float32(f"{name}.weight") if plain else self.linear(name).float32()

    def vector(self, name: str) -> NDArray[np.float32]:
        """The tensor `name` (its full name), which is no matrix, in float32."""
        return self._tensors.float32(name)

    def _placed(self) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        for stored, name in self.names.items():
            if name in found:
                raise Corrupt(f"tensor `{name}` is stored twice, once as `{stored}`", hint=AGAIN)
            if name is not None:
                found[name] = self.stored[stored]
        return found

    def _has_own_head(self) -> bool:
        """Whether a head is stored that is not the embedding's matrix. Reads both where both are plain floats."""
        head, table = f"{HEAD}weight", f"{EMBEDDING}weight"
        if not any(f"{HEAD}{part}" in self._tensors for part in ("weight", "weight_packed", "qweight")):
            return False
        plain = self._tensors.dtype(head) in FLOATS and self._tensors.dtype(table) in FLOATS
        return not plain or not self._tensors.same(head, table)

    def _pass_over_extra(self) -> None:
        """What the graph does not use is left out, as in transformers, and said; but for what may be a part of a
        quantized matrix in a form that is not known here."""
        unused = sorted(name for name in self._tensors.stored.keys() - self._tensors.used if not harmless(name))
        copy = f"{HEAD}weight" if self.spec.tied else ""  # equal to the embedding, as was compared
        extra = [name for name in unused if name != copy and not self._no_bias(name)]
        of_matrix = [
            name for name in extra if self.scheme.method != "none" and name.rpartition(".")[0] in self._linears
        ]
        if of_matrix:
            raise NotSupported(
                f"{listed(of_matrix)} belongs to a quantized matrix, and what it does there is not known",
                hint="use another quantization of the model, or the original",
            )
        if extra:
            self._notes.append(f"{listed(extra)}: config.json describes no such thing; passed over, as in transformers")

    def _no_bias(self, name: str) -> bool:
        """GPTQ tools write a bias of zeros for every matrix without one."""
        linear = self._linears.get(name.removesuffix(".bias")) if name.endswith(".bias") else None
        if self.scheme.method != "gptq" or linear is None or self._tensors.shape(name) != (linear.rows,):
            return False
        return self._tensors.dtype(name) in FLOATS and not self._tensors.read(name).any()
