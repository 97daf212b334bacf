"""What is finished, and what has to be made again. Dates decide nothing: every product says what it was made from.

A model, samples, scores, figures and pages state the hashes of what they were made from. A product whose statement
agrees with the configuration and with the files that exist is current: its job has no inputs, so that Snakemake has
nothing to compare. A product that disagrees is outdated, and its job runs again. What does not exist decides nothing:
finished scores stay valid after their samples, their model or their data were deleted.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coldbench import data
from coldbench.core.checksums import read_sealed, verified
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import files_hash, sha256
from coldbench.core.provenance import page_hash
from coldbench.core.run import Run
from coldbench.core.validation import fingerprint
from coldbench.evaluation.tables import VALUES, csv_fits, read_made_from, why_not_beside
from coldbench.models.header import read_header, snapshot_file
from coldbench.sampling.manifest import facts, read_manifest

Status = Literal["missing", "outdated", "incomplete", "current"]
"""An incomplete product is current, but files that belong to it are gone or are others. What was made from it stays
valid."""
Facts = Mapping[str, Any]
"""What something was made from, by name. None: not known."""


@dataclass(frozen=True)
class Product:
    """The product of one job: its main file, its status, why it is outdated, and the products that its job reads."""

    file: Path
    status: Status
    reason: str = ""
    sources: tuple[Product, ...] = ()

    @property
    def to_make_first(self) -> list[str]:
        """The sources that have to be made before this product; a current one needs none."""
        if self.status == "current":
            return []
        return [str(source.file) for source in self.sources if source.status != "current"]


def product(
    files: Sequence[Path],
    reason: Callable[[], str],
    sources: Iterable[Product] = (),
    needs_sources: bool = False,
    lack: Callable[[], str] = str,
) -> Product:
    """The product in `files`, of which the first is the main one.

    `reason` says why it does not agree with what it should be made from, "" if it agrees. An outdated source makes it
    outdated, and so does a missing one if it `needs_sources`. `lack` says which of the files that belong to it is gone
    or is another one, "" if none is.
    """
    sources = tuple(sources)
    if not all(file.exists() for file in files):
        return Product(files[0], "missing", "", sources)
    undone = next((source for source in sources if source.status == "outdated"), None)
    if needs_sources:
        undone = next((source for source in sources if source.status != "current"), None)
    try:
        why = f"{undone.file} is {undone.status}" if undone else reason()
        lacking = "" if why else lack()
    except ColdbenchError as error:
        why, lacking = str(error), ""
    if lacking:
        return Product(files[0], "incomplete", lacking, sources)
    return Product(files[0], "outdated" if why else "current", why, sources)


def difference(stated: Facts, expected: Facts) -> str:
    """The first fact, as a reason, in which a statement disagrees with what is known; "" if none does."""
    for name, value in expected.items():
        if value is not None and stated.get(name) != value:
            return f"it was made from another {name}"
    return ""


class Products:
    """The products of runs in the folder `results`, whose source data lie in the folder `sources`.

    `runs` holds every run by budget and name, `fid` the FID protocols to compute, and `weights` the mark that their
    weights are fetched. What a file states is read once, so an instance describes one moment.
    """

    def __init__(
        self,
        runs: Mapping[tuple[str, str], Run],
        results: Path,
        sources: Path,
        fid: Sequence[str] = (),
        weights: Path | None = None,
    ) -> None:
        self.runs, self.results, self.sources, self.fid, self.weights = runs, results, sources, list(fid), weights
        self._known: dict[tuple[Any, ...], Product] = {}

    def fetched(self, name: str) -> Product:
        """The mark that the source of a data set is complete. What was made from one that is gone stays valid."""
        mark = product([self.results / "data" / f"{name}.fetched"], str)
        if mark.status == "current" and not data.available(name, self.sources):
            return Product(mark.file, "incomplete", "the source is not complete")
        return mark

    def prepared(self, name: str, size: int) -> Product:
        """A prepared data set. It stays current where its source is gone, because nothing contradicts it."""
        folder = self.results / "data" / f"{name}-{size}"

        def reason() -> str:
            return "" if data.prepared_fits(folder, name, size, self.sources) else f"the source of {name} has changed"

        files = [folder / file for file in ("info.json", "train.npy", "test.npy")]
        return self._once(("data", name, size), files, reason, lambda: [self.fetched(name)])

    def data_of(self, run: Run) -> list[Product]:
        """The prepared data sets of a run: its images, and those that its degradation mixes in."""
        experiment = run.experiment
        names = [name for name in (experiment.dataset, experiment.partner) if name]
        return [self.prepared(name, experiment.prepared_size) for name in names]

    def model(self, run: Run) -> Product:
        """The model that `run` samples. An imported model was made from no data."""
        owner = self.runs[run.metadata.budget, run.model]
        file = self._file(owner, "model.safetensors")

        def reason() -> str:
            header = read_header(file)
            expected = self._experiment(owner)
            if "imported" in header.provenance:
                expected = {"experiment": expected["experiment"]}
            stated = {"experiment": header.experiment.fingerprint, "data": header.data, "partner": header.partner}
            return difference(stated, expected)

        sources = list if was_imported(file) else functools.partial(self._sources_of_model, owner)
        return self._once(("model", file), [file], reason, sources)

    def _sources_of_model(self, run: Run) -> list[Product]:
        """What a training reads: its images, and for a snapshot the training that keeps it."""
        whole = self.runs.get((run.metadata.budget, run.experiment.whole_run)) if run.experiment.snapshot else None
        return [*self.data_of(run), *([self.model(whole)] if whole else [])]

    def samples(self, run: Run) -> Product:
        """The manifest of a run's images."""
        file = self._file(run, "samples.json")

        def reason() -> str:
            return difference(facts(read_manifest(file)), self._sampling(run))

        return self._once(
            ("samples", file), [file], reason, lambda: [self.model(run), *self.data_of(run)], lambda: _missing_of(file)
        )

    def scores(self, run: Run) -> Product:
        """The scores of a run, complete with the values of its images as long as its samples can give them."""
        file = self._file(run, "scores.parquet")

        def reason() -> str:
            stated = {"metrics": [], **read_made_from(file)}
            lacking = set(self.fid).difference(stated.get("fid", []))  # more protocols than asked for are no reason
            expected = {**self._images(run), "metrics": run.metrics}
            return difference(stated, expected) or (f"it has no FID by {min(lacking)}" if lacking else "")

        def lack() -> str:
            return why_not_beside(file.with_name(VALUES), file) if self.samples(run).status == "current" else ""

        weights = [product([self.weights], str)] if self.weights else []
        return self._once(
            ("scores", file), [file], reason, lambda: [self.samples(run), *self.data_of(run), *weights], lack
        )

    def figures(self, run: Run) -> Product:
        """The drawn images of a run, and their list."""
        file = self._file(run, "figures.json")

        def reason() -> str:
            stated = read_sealed(file)
            return _changed_sprite(file, stated) or difference(stated.get("made_from", {}), self._images(run))

        return self._once(
            ("figures", file),
            [file, file.with_suffix("")],
            reason,
            lambda: [self.scores(run), self.samples(run), self.model(run), *self.data_of(run)],
        )

    def evaluation(self, run: Run) -> Product:
        """The scores and figures of a run, which one job makes: those of the two that are to be made."""
        scores, figures = self.scores(run), self.figures(run)
        if scores.status != "current":
            return scores
        return figures if figures.status != "current" else scores

    def merged(self, file: Path, runs: Iterable[Run]) -> Product:
        """The table, `file`, of the scores of several runs."""
        scores = [self.scores(run) for run in runs]
        expected = {"scores": files_hash(score.file for score in scores)}

        def reason() -> str:
            return difference(read_made_from(file), expected) or _changed_csv(file)

        return product([file, file.with_suffix(".csv")], reason, scores, needs_sources=True)

    def calibration(self, file: Path, names: Iterable[str], fetched: Iterable[str], inputs: Sequence[Path]) -> Product:
        """The calibration, `file`, of the data sets `names` by the interpretations and printed numbers in `inputs`.

        `fetched` names the data sets to fetch first, where a job can. It stays current where a data set is absent that
        it holds.
        """
        present = [name for name in names if data.available(name, self.sources)]
        digests = {name: data.source_digest(name, self.sources) for name in present}

        def reason() -> str:
            stated = read_made_from(file)
            expected = {"inputs": files_hash(inputs), "data": {**stated.get("data", {}), **digests}}
            return difference(stated, expected) or _changed_csv(file)

        possible = [name for name in fetched if name in present or data.dataset(name).download]
        return product([file, file.with_suffix(".csv")], reason, map(self.fetched, possible))

    def is_shown(self, run: Run) -> bool:
        """Whether a run is finished: its scores and figures are current."""
        return self.scores(run).status == self.figures(run).status == "current"

    def needs_no_training(self, run: Run) -> bool:
        """Whether the scores of a run are current, or can be made again from its model."""
        parts = zip((run.experiment.dataset, run.experiment.partner), self.data_of(run), strict=False)
        return self.scores(run).status in ("current", "incomplete") or (
            self.model(run).status == "current"
            and all(part.status == "current" or data.available(str(name), self.sources) for name, part in parts)
        )

    def why_hidden(self, run: Run) -> str:
        """Why a run whose scores and figures exist is not finished, in a line; "" if it is, or if one is missing."""
        made = self.scores(run), self.figures(run)
        if "missing" in [each.status for each in made]:
            return ""
        return next((f"{each.file} is {each.status}: {each.reason}" for each in made if each.status != "current"), "")

    def has_model(self, run: Run) -> bool:
        """Whether a model of a run's experiment exists, also set aside, whatever images it was trained on."""
        file = self._file(self.runs[run.metadata.budget, run.model], "model.safetensors")
        kept = []
        if run.experiment.snapshot:
            whole = self.runs.get((run.metadata.budget, run.experiment.whole_run))
            if whole and self.model(whole).status != "current":
                return True  # its training will keep it
            name = file.parent.with_name(run.experiment.whole_run) / file.name
            kept = [snapshot_file(name, run.experiment.training.max_steps)]
        for each in (file, *kept, *file.parent.glob(f"{file.stem}.*{file.suffix}")):
            with contextlib.suppress(ColdbenchError):
                if read_header(each).experiment.fingerprint == run.experiment.fingerprint:
                    return True
        return False

    def _once(
        self,
        key: tuple[Any, ...],
        files: Sequence[Path],
        reason: Callable[[], str],
        sources: Callable[[], Iterable[Product]],
        lack: Callable[[], str] = str,
    ) -> Product:
        if key not in self._known:
            self._known[key] = product(files, reason, sources(), lack=lack)
        return self._known[key]

    def _file(self, run: Run, name: str) -> Path:
        return self.results / run.metadata.budget / run.metadata.run / name

    def _experiment(self, run: Run) -> dict[str, Any]:
        """What the model of `run` is made from: its experiment, and the hashes of the prepared data that exist."""
        hashes = [
            data.info(part.file.parent)["hash"] if part.status == "current" else None for part in self.data_of(run)
        ]
        return {"experiment": run.experiment.fingerprint, **dict(zip(("data", "partner"), hashes, strict=False))}

    def _sampling(self, run: Run) -> dict[str, Any]:
        """What the images of `run` are made from."""
        model = self.model(run)
        weights = read_header(model.file).sha256 if model.status == "current" else None
        return {**self._experiment(run), "model": weights, "sampling": run.sampling.fingerprint}

    def _images(self, run: Run) -> dict[str, Any]:
        """What the scores and figures of `run` are made from."""
        manifest = self._file(run, "samples.json")
        checksum = sha256(manifest) if manifest.exists() else None
        return {**self._sampling(run), "samples": checksum, "metadata": fingerprint(run.metadata.model_dump())}


def page(files: Sequence[Path], made_from: Iterable[Path], sources: Iterable[Product], *settings: str) -> Product:
    """A page of the report, the first of `files`, whose job reads the files `made_from`; the others are its exports.

    `settings` are what its job is given beside these files.
    """

    def stated(content: bytes, name: str) -> str | None:
        match = re.search(rf'<meta name="coldbench-{name}" content="(\w+)">'.encode(), content)
        return match and match[1].decode()

    def reason() -> str:
        content = files[0].read_bytes()
        if not content.rstrip().endswith(b"</html>"):
            return "it is cut"
        if files[1:] and stated(content, "exports") != files_hash(files[1:]):
            return "a file that was exported with it has changed"
        return difference({"inputs": stated(content, "made-from")}, {"inputs": page_hash(made_from, *settings)})

    return product(files, reason, sources, needs_sources=True)


def was_imported(model: Path) -> bool:
    """Whether a model exists and was imported from a released checkpoint."""
    try:
        return "imported" in read_header(model).provenance
    except ColdbenchError:
        return False  # missing, or not written by coldbench: the rules make it again


def _changed_csv(table: Path) -> str:
    """That the CSV of a table is not the one that was written, as a reason; "" if it is."""
    return "" if csv_fits(table) else f"{table.with_suffix('.csv').name} is not the one that was written with it"


def _changed_sprite(figures: Path, stated: Facts) -> str:
    """Which sprite of a list of figures is not the one that was drawn, as a reason; "" if all are."""
    try:
        for sprite in stated["sprites"]:
            verified(figures, sprite["path"], sprite["sha256"])
    except (KeyError, TypeError):
        return "it does not state the checksums of its sprites"
    return ""


def _missing_of(manifest: Path) -> str:
    """Which file of images that a manifest names is missing, as a reason; "" if none is."""
    files = (manifest.parent / name for name in read_manifest(manifest).files)
    return next((f"{file} is missing" for file in files if not file.exists()), "")
