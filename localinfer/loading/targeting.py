"""`quantize --target-kld`: models of several sizes are made and measured, until the smallest that keeps it is found."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.errors import UsageError, size
from localinfer.events import OnProgress
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.loading.making import Making, chosen_recipe, no_end, stoppable
from localinfer.loading.tell import Tell

if TYPE_CHECKING:
    from localinfer.evaluate import Quality
    from localinfer.quantize import CalibrationText, Earlier, QuantizeReport
    from localinfer.quantize.budget import Deal, Dealt
    from localinfer.quantize.plan import HeadBits
    from localinfer.quantize.recipe import Asked


def make_within(
    source: LocalModel,
    bits: int,
    target: float,
    *,
    head: "HeadBits" = 8,
    asked: "Asked",
    calib: Sequence[str] = (),
    seed: int = 0,
    name: str,
    threads: int = 0,
    earlier: "Earlier" = "auto",
    tell: Tell,
) -> "tuple[Making, Quality]":
    """Make of `source` the smallest `name:INT<bits>`, no matrix below `bits`, whose mean KL divergence on our own text
    is at most `target`; each round is told. A stopped run goes on with the models that it has made.

    Raises `UsageError` where not even 8 bits everywhere keep it, and for a recipe that trains.
    """
    from localinfer.chats.template import conversation
    from localinfer.hub.cache import variant_dir
    from localinfer.loading.self_calibration import calibration_files, forget_words
    from localinfer.quantize import CalibrationText
    from localinfer.quantize.checkpoint import ask_costs
    from localinfer.quantize.journal import Journal, locked
    from localinfer.quantize.origin import Origin

    dest = variant_dir(name, variant_of_bits(bits))
    recipe = chosen_recipe(source, bits, asked, mixed=True, tell=tell)
    if recipe.refine:
        raise UsageError("`--target-kld` measures before any training", hint="leave out `--refine` and `--effort best`")
    folder, text = dest.with_name(f"{dest.name}.partial"), CalibrationText(recipe.tokens, seed, (), conversation)
    with tell.progress(long=True) as progress, stoppable(tell):
        more: dict[str, Any] = {"refine": False, "left": no_end, "progress": progress, "say": tell.note}
        files = calibration_files(source, dest, calib, text, threads=threads, earlier=earlier, **more)
        text = replace(text, files=files)
        progress("asking what each width costs", 0, 0)
        deal, settings = ask_costs(source.path, bits, text, method=recipe.method, head=head, threads=threads)
        rounds = _Rounds(source, folder, f"{name}:{dest.name}", settings, text, threads, tell, progress)
        with locked(folder):
            Journal(folder, settings | {"target": "kld"}, Origin(source.path).said, earlier=earlier, say=tell.note)
            report, quality = rounds.published(deal, target, dest)
    forget_words(dest)
    return Making(report, recipe, {}, None), quality


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Models of several sizes in one folder, made and measured one after the other."""

    source: LocalModel
    folder: Path
    name: str
    settings: dict[str, Any]
    text: "CalibrationText"
    threads: int
    tell: Tell
    progress: OnProgress

    def published(self, deal: "Deal", target: float, dest: Path) -> "tuple[QuantizeReport, Quality]":
        """Find the smallest model that keeps `target`, and give it its place `dest`; the others are deleted."""
        from localinfer.quantize.journal import publish
        from localinfer.quantize.report import keep_quality, keep_report
        from localinfer.quantize.target import Search

        search, least = Search(deal, target), float("inf")
        made: dict[int, tuple[QuantizeReport, Quality]] = {}
        while (dealt := search.next()) is not None:
            report, quality = made[dealt.nbytes] = self._round(len(made) + 1, dealt)
            found = quality.kld_mean or 0.0
            least = min(least, found)
            search.learn(dealt, found)
            kept = "keeps it" if found <= target else "loses too much"
            self.tell.note(
                f"round {len(made)}: {report.body_bits_per_weight:.2f} bits a weight in the layers, "
                f"{size(report.size_bytes)}: KL divergence {found:.4f}, which {kept}"
            )
        if search.kept is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise UsageError(
                f"a KL divergence of {target:g} cannot be kept: the best of {len(made)} mixes up to 8 bits has "
                f"{least:.4g}",
                hint="ask for more than that, or take `--bits 8`",
            )
        report, quality = made[search.kept.nbytes]
        path = self._path(search.kept)
        keep_report(path, report)
        keep_quality(path, quality.figures())
        publish(path, dest)
        shutil.rmtree(self.folder, ignore_errors=True)
        return report, quality

    def _round(self, number: int, dealt: "Dealt") -> "tuple[QuantizeReport, Quality]":
        """One model, made unless a stopped run has made it, and what it lost."""
        from localinfer.evaluate import report_on

        report = self._made(number, dealt)
        quality = report_on(
            self._path(dealt),
            self.source.path,
            names=(self.name, self.source.ref),
            threads=self.threads,
            on_progress=self.progress,
        )
        return report, quality

    def _made(self, number: int, dealt: "Dealt") -> "QuantizeReport":
        from localinfer.formats.durable import write_json
        from localinfer.formats.json_files import read_object
        from localinfer.quantize import QuantizeReport, quantize_checkpoint

        path = self._path(dealt)
        kept = path.with_name(f"{path.name}.json")
        if path.exists() and kept.exists():
            return QuantizeReport(**read_object(kept))
        shutil.rmtree(path, ignore_errors=True)
        report = quantize_checkpoint(
            self.source.path,
            path,
            bits=self.settings["bits"],
            head=self.settings["head"],
            method=self.settings["method"],
            text=self.text,
            mix=dealt.mix,
            threads=self.threads,
            on_progress=lambda done, total: self.progress(f"round {number} of {self.name}", done, total),
            on_speed=self.tell.speed,
            say=self.tell.note,
        )
        write_json(kept, asdict(report))
        return report

    def _path(self, dealt: "Dealt") -> Path:
        return self.folder / f"round-{dealt.nbytes}"
