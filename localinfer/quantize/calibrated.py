"""The layers of a plan, quantized one after the other by what calibration text does in them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from localinfer.formats.compressed import dequantize, pack, unpack
from localinfer.formats.safetensors import SafetensorsFile
from localinfer.graph.ops import LayerOp, Mixture, Norm
from localinfer.graph.stored import widen
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import awq, gptq
from localinfer.quantize.layer import Made, copied, not_seen, stored, too_large
from localinfer.quantize.moments import Moments, Stage
from localinfer.quantize.plan import HEAD, TABLE_BITS, Job, Method, Plan, graph_name
from localinfer.quantize.readers import Reader, Rounding
from localinfer.quantize.stream import Stream
from localinfer.reference.executor import as_stream

HEAD_ROWS = 1 << 14
"""Rows of the head that are fitted at once."""

LEAST_ROWS = 128
"""Tokens that must choose an expert for it to be rounded by what they do in it."""


class Layers:
    """Quantizes the units of `plan` that hold layers; they must be asked for in their order, each once.

    `tokens` are the calibration text. The embedding is read from `tables`, the file that holds it as quantized; a large
    stream lies in a file in `scratch`.
    """

    def __init__(self, source: Path, plan: Plan, tokens: NDArray[np.int32], tables: Path, scratch: Path) -> None:
        self.checkpoint = Checkpoint(source)
        self.method: Method = plan.method
        names = {job.tensor.name: graph_name(self.checkpoint, job) for job in plan.jobs}
        self._stored = {name: stored for stored, name in names.items()}
        self._jobs = {names[job.tensor.name].removesuffix(".weight"): job for job in plan.jobs if job.bits}
        tops = {TABLE_BITS: 32512 if plan.bits == TABLE_BITS else 127}  # as graph/packing.py chooses them
        roundings: dict[str, Rounding] = {
            name: (tops.get(job.bits, 127), job.group) for name, job in self._jobs.items()
        }
        self.stream = Stream(self.checkpoint, tokens, self._embedder(tables), roundings, scratch, self._follows())

    def ops(self, unit: Sequence[Job]) -> list[LayerOp]:
        """The operations whose matrices lie in `unit`; none if it is no layer."""
        jobs_of_unit = {id(job) for job in unit}
        return [op for op in self.checkpoint.graph.body if id(self._jobs[op.fused()[-1][0].name]) in jobs_of_unit]

    def quantize(
        self,
        unit: Sequence[Job],
        ops: Sequence[LayerOp],
        on_weights: Callable[[int], None],
        look: Callable[[], None] = lambda: None,
    ) -> Made:
        """Quantize one layer and take the stream through it. Raises `Corrupt` for NaN, infinity and huge weights, and
        what `look` raises, which is called often; then no other layer can be quantized."""
        made, notes, few = Made({}, {}, {}, ()), list[str](), list[str]()

        def fit(op: LayerOp, stage: Stage, inputs: Moments) -> dict[str, Tensor]:
            jobs = [self._jobs[linear.name] for linear in stage]
            seen = inputs.rows >= LEAST_ROWS or not isinstance(op, Mixture)
            try:
                weights, fitted, results = self._fitted(op, stage, inputs if seen else None)
            except OverflowError as error:
                raise too_large(jobs[0], error) from error
            made.tensors.update({self._stored[name]: ("F32", vector.numpy()) for name, vector in results.items()})
            few.extend(linear.name.removesuffix(".down_proj") for linear in stage[-1:] if not seen and len(stage) == 1)
            if fitted.note:
                notes.append(f"`{jobs[0].tensor.name}`: {fitted.note}")
            first = 0
            for job, linear in zip(jobs, stage, strict=True):
                part = slice(first, first + linear.rows)
                first += linear.rows
                matrix = weights[part]
                values, scales = fitted.values[part], fitted.scales[part]
                made.tensors.update(stored(job, pack(values, job.bits), scales))
                results[linear.name] = torch.from_numpy(dequantize(values, scales))
                made.errors[job.tensor.name] = _ratio((matrix - results[linear.name]).pow(2), matrix.pow(2))
                if seen:
                    made.output_errors[job.tensor.name] = _ratio(fitted.error[part], fitted.power[part])
                on_weights(job.weights)
            return results

        self.stream.quantize(ops, fit, look)
        for job in unit:
            if not job.bits and job.tensor.name not in made.tensors:
                made.tensors[job.tensor.name] = copied(job)
            if not job.bits:
                on_weights(job.weights)
        notes += [not_seen(few, LEAST_ROWS)] if few else []
        return Made(made.tensors, made.errors, made.output_errors, tuple(notes))

    def _fitted(
        self, op: LayerOp, stage: Stage, inputs: Moments | None
    ) -> tuple[Tensor, gptq.Fitted, dict[str, Tensor]]:
        """The matrices of a stage as they are to be rounded, what came of it, and vectors that changed. `inputs` None:
        nothing is known of them."""
        weights = torch.cat([self.stream.original.weight(linear) for linear in stage])
        form, results = self._form([self._jobs[linear.name] for linear in stage]), dict[str, Tensor]()
        if inputs is None:
            return weights, gptq.fit_nearest(weights, None, *form), results
        moments, factor = inputs.second, None
        if self._follows():
            factor = gptq.factored(moments, form[1])
            weights = gptq.moved(weights, factor, apart=inputs.apart, missing=inputs.missing)
        norm = self._foldable(op)
        if self.method.startswith("awq") and stage[0] == op.linears()[0] and norm is not None:
            scale, results = self._folded(norm, awq.channel_scales(weights, moments, *form))
            weights, moments = awq.scaled(weights, moments, scale)
            factor = None
        fit = partial(gptq.fit, factor=factor) if self._follows() else gptq.fit_nearest
        return weights, fit(weights, moments, *form), results

    def quantize_head(self, job: Job, on_weights: Callable[[int], None], look: Callable[[], None]) -> Made:
        """Quantize the head for what comes out of the layers, once the stream has passed all. Raises as `quantize`."""
        head = self.checkpoint.graph.head
        inputs = self.stream.head_moments(head, replace(head.table, name=HEAD), look)
        factor = gptq.factored(inputs.second, job.group) if self._follows() else None
        whole = self.stream.original.weight(head.table)
        parts, errors = list[gptq.Fitted](), [0.0, 0.0]
        for rows in torch.split(whole, HEAD_ROWS):
            look()
            weights = gptq.moved(rows, factor, apart=inputs.apart)
            try:
                follows, form = self._follows(), self._form([job])
                fit = partial(gptq.fit, factor=factor) if follows else gptq.fit_nearest
                parts.append(fit(weights, inputs.second, *form))
            except OverflowError as error:
                raise too_large(job, error) from error
            off = weights - torch.from_numpy(dequantize(parts[-1].values, parts[-1].scales))
            errors = [errors[0] + float(off.pow(2).sum()), errors[1] + float(weights.pow(2).sum())]
            on_weights(rows.numel())
        values, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "scales"))
        lost, power = (np.concatenate([getattr(part, name) for part in parts]) for name in ("error", "power"))
        notes = dict.fromkeys(f"`{job.tensor.name}`: {part.note}" for part in parts if part.note)
        name = job.tensor.name
        return Made(
            stored(job, pack(values, job.bits), scales),
            {name: _ratio(errors[0], errors[1])},
            {name: _ratio(lost, power)},
            tuple(notes),
        )

    def pass_over(self, ops: Sequence[LayerOp], file: Path) -> None:
        """Take the stream through a layer that is quantized in `file` already."""
        written = SafetensorsFile(file)
        tensors = {}
        for op in ops:
            norm = op.input_norm()
            for name in () if norm is None else (name for name, _ in norm.vectors()):
                values = written.read(self._stored[name])  # others than the original's, if scales were folded into them
                wide = widen(values) if values.dtype == np.uint16 else values.astype(np.float32)
                tensors[name] = torch.from_numpy(wide)
            quantized = (linear.name for linear in op.linears() if linear.name in self._jobs)
            tensors |= {name: _read(written, self._jobs[name]) for name in quantized}
        self.stream.pass_over(ops, tensors)

    def _follows(self) -> bool:
        """Whether matrices are to make up for what those before them cost."""
        return self.method.endswith("gptq")

    def _form(self, jobs: Sequence[Job]) -> tuple[int, int]:
        """Bits and group of matrices that are rounded together."""
        return jobs[0].bits, jobs[0].group

    def _foldable(self, op: LayerOp) -> Norm | None:
        """The norm that `op` alone reads, if there is one."""
        norm = op.input_norm()
        read = sum(other.input_norm() == norm for other in self.checkpoint.graph.body)
        return norm if read == 1 else None

    def _folded(self, norm: Norm, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`norm`'s weight divided by `scale`, and the scale that this leaves: 1 where the norm lets nothing through."""
        name = f"{norm.name}.weight"
        before = self.stream.vector(name) + norm.offset
        after = torch.where(before == 0, 0, before / scale) - norm.offset
        left = after + norm.offset
        scale = torch.where(left == 0, 1, before / left)
        if not norm.bias:
            return scale, {name: after}
        bias = f"{norm.name}.bias"
        return scale, {name: after, bias: self.stream.vector(bias) / scale}

    def _embedder(self, file: Path) -> Callable[[NDArray[np.int32]], Tensor]:
        embed = self.checkpoint.graph.embed
        if embed.table.name not in self._jobs:
            whole = Reader(self.checkpoint).weight(embed.table)
            return lambda ids: as_stream(embed, whole[torch.from_numpy(ids).long()])
        job = self._jobs[embed.table.name]
        written = SafetensorsFile(file)
        packed, scales = (written.read(f"{job.module}.{part}") for part in ("weight_packed", "weight_scale"))

        def rows(ids: NDArray[np.int32]) -> Tensor:
            values = unpack(packed[ids], job.bits, job.tensor.info.shape[1])
            return as_stream(embed, torch.from_numpy(dequantize(values, scales[ids])))

        return rows


def _read(file: SafetensorsFile, job: Job) -> Tensor:
    packed, scales = (file.read(f"{job.module}.{part}") for part in ("weight_packed", "weight_scale"))
    return torch.from_numpy(dequantize(unpack(packed, job.bits, job.tensor.info.shape[1]), scales))


def _ratio(error: Any, power: Any) -> float:
    """The root of the ratio of two sums, summed in double precision."""
    above, below = (float(np.asarray(x, np.float64).sum()) for x in (error, power))
    return float(np.sqrt(max(above, 0) / below)) if below > 0 else 0.0


def arithmetic() -> dict[str, str]:
    """What sums of torch depend on, beside the number of threads."""
    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}
