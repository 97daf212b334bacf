"""The plan: FLOPs against formulas, bytes against files, hours against the data file, and the laws of the sums."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cases import CONFIG, DEVICES, METADATA, ROOT, sampled, untrained
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from coldbench import data, degradations, models
from coldbench.cli import app
from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.core.run import Run
from coldbench.core.sampling_settings import SampleSet, Sampling
from coldbench.core.validation import checked
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics.extractors import GABOR
from coldbench.evaluation.metrics.reference import reference
from coldbench.planning import cost, layers, plan
from coldbench.planning.checks import refuse_on_cpu
from coldbench.planning.cost import Device
from coldbench.planning.grid import Grid
from coldbench.planning.plan import Job
from coldbench.planning.products import Product, Products
from coldbench.sampling import samplers
from coldbench.sampling.shards import SamplingPaths, batches_of, sample_run
from coldbench.training import checkpoints, loop

SMALL = Network(dim=8, dim_mults=[1, 2])
DDPM = Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], attention=8)
PAPER = layers.read([CONFIG / "paper.yaml"])
H100 = cost.device(DEVICES, "h100")
CPU = cost.device(DEVICES, "cpu")


def grid(tmp_path: Path, *overlays: str, **own: Any) -> Grid:
    raw = layers.read([CONFIG / f"{name}.yaml" for name in ("paper", *overlays)])
    return plan.resolved({**raw, "results": str(tmp_path / "results"), **own})


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return grid(tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="module")
def jobs(paper: Grid) -> list[Job]:
    return plan.jobs(paper, H100)


# FLOPs


def by_formula(network: Network, channels: int, side: int) -> int:
    """FLOPs of one image, from its layers' shapes: two per weight and position, and attention's products."""
    built, total = models.build(network, channels, side).eval(), 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            total += 2 * inputs[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Conv2d):
            total += 2 * out.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += 2 * layer.weight.numel()
        elif type(layer).__name__ == "LinearAttention":
            positions, hidden, dim = inputs[0].shape[-1] ** 2, layer.heads * layer.width, layer.dim
            if positions > dim <= hidden:  # its convolutions do not run
                total += 2 * (positions * dim * (2 * hidden + dim) + hidden * dim * (2 * layer.width + dim))
            else:
                total += 2 * 2 * hidden * layer.width * positions
        elif type(layer).__name__ == "AttnBlock":
            total += 2 * 2 * inputs[0].shape[1] * inputs[0].shape[-1] ** 4

    for layer in built.modules():
        layer.register_forward_hook(add)
    with torch.no_grad():
        built(torch.zeros(1, channels, side, side), torch.zeros(1, dtype=torch.int64))
    return total


def test_stored_sizes_are_counted_again() -> None:
    """`.ci/network_sizes.py` writes networks.json; torch counts one network of each kind again."""
    sizes = cost._known_sizes()
    assert all(cost.size_key(*cost.network_of(run)) in sizes for run in plan.resolved(PAPER).all_runs.values())
    for name in ("unet_convnext", "unet_ddpm"):
        key = next(key for key in sizes if name in key)
        assert cost.Size(*sizes[key]) == cost.count_size(key)


@pytest.mark.parametrize(("network", "channels"), [(SMALL, 1), (SMALL, 3), (DDPM, 3)])
def test_flops_are_those_of_the_formula(network: Network, channels: int) -> None:
    assert cost.size_of(network, channels, 16).flops == by_formula(network, channels, 16)


def test_one_convolution_has_the_flops_that_one_counts_by_hand() -> None:
    """The paper's last layer at 32 px: 64 channels to 3, 1 x 1."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        nn.Conv2d(64, 3, 1)(torch.empty(1, 64, 32, 32))
    assert counter.get_total_flops() == 2 * 64 * 3 * 32 * 32


def test_backward_is_twice_forward() -> None:
    """For a network without grouped convolutions, whose backward pass the counter gets wrong."""
    with torch.device("meta"):
        network = models.build(DDPM, 3, 16)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, 16, 16), torch.zeros(1, dtype=torch.int64)).sum().backward()
    ratio = counter.get_total_flops() / cost.size_of(DDPM, 3, 16).flops
    assert ratio == pytest.approx(1 + cost.BACKWARD, rel=0.02)


def test_inception_constants_are_counted_again() -> None:
    import torchvision

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False).eval()
        network(torch.empty(1, 3, cost.INCEPTION_SIDE, cost.INCEPTION_SIDE))
    assert counter.get_total_flops() == cost.INCEPTION_FLOPS
    assert 4 * sum(p.numel() for p in network.parameters()) == pytest.approx(cost.INCEPTION_BYTES, rel=0.02)


# Network calls


@pytest.mark.parametrize("method", ["direct", "naive", "tacos"])
@pytest.mark.parametrize(
    "part", [{}, {"stride": 3}, {"severity": 5}, {"severity": 5, "assumed_severity": 2, "stride": 2}]
)
def test_nfe_is_that_of_the_sampler(method: str, part: dict[str, Any]) -> None:
    called = []
    degradation = degradations.build({"name": "decolorization", "T": 7}, 16)
    part_, x = checked(SampleSet, part, "set"), torch.zeros(1, 3, 16, 16)
    first = part_.assumed_severity or part_.severity or degradation.T

    def restore(x: Tensor, s: int) -> Tensor:
        called.append(s)
        return x

    list(samplers.sample(restore, degradation, x, {}, method, start=first, stride=part_.stride))
    assert cost.nfe(part_, method, degradation.T) == len(called)


@settings(max_examples=30, deadline=None)
@given(images=st.integers(1, 90), shard=st.integers(1, 50), batch=st.integers(1, 30), forward=st.integers(1, 20))
def test_padded_images_are_those_that_the_network_sees(images: int, shard: int, batch: int, forward: int) -> None:
    shown = 0

    class Seen(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            nonlocal shown
            shown += len(x)
            return x

    restore = models.restorer(Seen(), forward)
    for first in range(0, images, shard):
        for where in batches_of(range(first, min(first + shard, images)), batch, forward):
            restore(torch.zeros(len(where), 1, 2, 2), 1)
    assert cost.padded_images(images, Sampling(shard_size=shard, batch_size=batch), forward) == shown


# Speed


def test_measured_network_has_its_measured_speed() -> None:
    for row in CPU.measured:
        network = Network(name=row.network, dim=row.dim, dim_mults=row.dim_mults, time=True)
        speed = cost.speed(CPU, network, row.channels, row.size, row.stage, row.precision)
        assert speed == cost.Speed(row.images_per_second, "measured")


def test_unmeasured_network_is_scaled_by_flops_from_the_nearest() -> None:
    row = CPU.measured[0].model_copy(update={"dim": 8, "dim_mults": [1, 2], "size": 16, "images_per_second": 50.0})
    far = row.model_copy(update={"dim": 64, "images_per_second": 1e9})
    on = CPU.model_copy(update={"measured": [far, row]})
    wide = SMALL.model_copy(update={"dim": 12})
    speed = cost.speed(on, wide, 1, 16, row.stage, "fp32")
    assert speed.source == "scaled"
    ratio = by_formula(SMALL, 1, 16) / by_formula(wide, 1, 16)
    assert speed.images_per_second == pytest.approx(50 * ratio)


@pytest.mark.parametrize(("stage", "passes"), [("train", 3), ("sample", 1)])
def test_device_without_measurements_is_counted_from_its_peak(stage: Any, passes: int) -> None:
    on = Device(title="x", source="y", peak={"fp32": 1e9, "tf32": 3e9}, share={"fp32": 0.5, "tf32": 0.1}, rationale="z")
    flops = by_formula(SMALL, 1, 16)
    for precision, rate in (("fp32", 0.5e9), ("tf32", 0.3e9), ("bf16", 0.5e9)):
        speed = cost.speed(on, SMALL, 1, 16, stage, precision)  # type: ignore[arg-type]
        assert speed == cost.Speed(pytest.approx(rate / passes / flops), "counted")


def test_training_hours_are_steps_times_batch_size_over_speed(experiment: Experiment) -> None:
    fast = cost.speed(H100, experiment.network, 1, 16, "train", "fp32").images_per_second
    assert cost.training(H100, experiment).hours * 3600 == pytest.approx(12 * 8 / fast)


def test_every_number_of_the_data_file_has_its_source() -> None:
    parser = argparse.ArgumentParser()
    for name in ("network", "stage", "precision", "device"):
        parser.add_argument(f"--{name}")
    for name in ("dim", "size", "channels", "batch", "repeats"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--dim-mults", type=int, nargs="+")
    for device in cost.devices(DEVICES).values():
        assert device.rationale
        assert bool(device.peak) == bool(device.source)
        for row in device.measured:
            python, script, *arguments = shlex.split(row.command)
            assert (python, (ROOT / script).is_file()) == ("python", True)
            options = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
            defaults = {"network": "unet_convnext", "dim": 64, "size": 32, "channels": 3, "dim_mults": [1, 2, 4, 8]}
            expected = {**defaults, "precision": "fp32", **options}
            assert row.model_dump().items() >= {k: expected[k] for k in (*defaults, "stage", "precision")}.items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices: {a: {title: x, rationale: y}}", "both stages must be measured"),
        ("devices: {a: {title: x, rationale: y, peak: {fp32: 1e12}, share: {fp32: 0.3}}}", "its source"),
        ("devices: {a: {title: x, rationale: y, peak: {fp32: 1e12}, share: {fp32: 0}, source: z}}", "greater than 0"),
        ("devices: {a: {title: x, rationale: y, peek: {}}}", "did you mean 'devices.a.peak'?"),
        ("devices: [", "is not YAML"),
    ],
)
def test_damaged_device_file_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "devices.yaml").write_text(text)
    with pytest.raises(ColdbenchError) as caught:
        cost.devices(tmp_path / "devices.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# Bytes


def test_bytes_are_those_of_the_files(
    experiment: Experiment, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training, its checkpoints (two kept, two archived), its shards; with 32 channels tensors outweigh names."""
    monkeypatch.setattr(checkpoints, "ARCHIVE_EVERY", 3)
    monkeypatch.setattr(cost, "ARCHIVE_STEPS", 3)
    training = experiment.training.model_copy(update={"max_steps": 8, "batch_size": 2})
    changes = {"network": Network(dim=32, dim_mults=[1, 2]), "training": training}
    longer = experiment.model_copy(update=changes)
    cpu, model, work = torch.device("cpu"), tmp_path / "model.safetensors", tmp_path / "work"
    loop.train(longer, loop.TrainingPaths(digits, model, work), cpu, loop.LoopOptions(checkpoint_every=0.0))
    states = sum(path.stat().st_size for path in work.glob("step-*.pt"))
    assert cost.model_bytes(longer) == pytest.approx(model.stat().st_size + states, rel=0.05)
    assert cost.model_bytes(longer, imported=True) == pytest.approx(model.stat().st_size, rel=0.05)

    sampling = Sampling(images=20, shard_size=8, methods=["direct", "tacos"])
    sample_run(SamplingPaths(model, digits, tmp_path / "shards"), sampling, cpu, tmp_path / "samples.json")
    written = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*/*.npy"))
    run = next(iter(grid(tmp_path, "smoke", experiments=["E01"]).report_runs.values()))
    other = run.model_copy(update={"experiment": longer, "sampling": sampling})
    assert cost.shard_bytes(other, 99) == pytest.approx(written, rel=0.05)

    prepared = sum((digits / f"{split}.npy").stat().st_size for split in data.SPLITS)
    assert cost.prepared_bytes("digits", 16, data.info(digits)["counts"]) == pytest.approx(prepared, rel=0.05)


def test_bytes_of_a_reference_set(tmp_path: Path) -> None:
    about = {"features": "x", "n": 10_000}
    reference(tmp_path, about, lambda: [torch.zeros(10_000)], lambda x: np.zeros((len(x), 2048), np.float32))
    (file,) = tmp_path.glob("*.npz")
    assert file.stat().st_size == pytest.approx(cost.REFERENCE_BYTES, rel=0.1)


# The plan


def test_the_paper_plan_lists_every_experiment(paper: Grid, jobs: list[Job]) -> None:
    named = {name.partition("-")[0] for name in plan.totals(jobs, 8)} - {plan.DATA}
    assert named == set(paper.config.grid)
    assert {f"E{k:02}" for k in range(1, 19)} | {f"A{k}" for k in range(1, 5)} == {n.partition("_")[0] for n in named}
    assert set(plan.totals(jobs, 8, "table")) == {"1", "2", "3", "4", "5", "5.3", "6", ""}
    stages = [job.stage for job in jobs]
    assert {stage: stages.count(stage) for stage in stages} == {
        "prepare": 5, "fetch": 1, "calibrate": 1, "train": 19, "sample": 24, "score": 24,
    }  # fmt: skip
    assert plan.total(jobs, 8).jobs == len(jobs) - 1  # a download is no job


@pytest.mark.parametrize("by", ["run", "table"])
def test_totals_are_sums(jobs: list[Job], by: str) -> None:
    total, parts = plan.total(jobs, 8), plan.totals(jobs, 8, by).values()
    for field in ("jobs", "train", "sample", "score", "hours", "disk"):
        assert getattr(total, field) == pytest.approx(sum(getattr(part, field) for part in parts))
    assert total.hours == pytest.approx(total.train + total.sample + total.score)
    assert max(part.wall for part in parts) <= total.wall <= sum(part.wall for part in parts)


def test_a_shared_model_is_counted_once(jobs: list[Job], tmp_path: Path) -> None:
    planned = plan.totals(jobs, 8)
    for name in ("E17-fitted", "A1-released", "A2-fitted", "A3-fitted", "A4-fitted"):
        assert planned[name].train == 0 < planned[name].sample
    alone = plan.totals(plan.jobs(grid(tmp_path, experiments=["E17"]), H100), 8)
    assert set(alone) == {"E09-fitted", "E17-fitted", plan.DATA}  # its model is made all the same, in its owner's row
    assert alone["E09-fitted"].hours == alone["E09-fitted"].train == planned["E09-fitted"].train
    assert (alone["E09-fitted"].jobs, alone["E17-fitted"].jobs) == (1, 2)


def test_finished_jobs_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is current is no job; scores without their model need no training either."""
    whole = grid(tmp_path, experiments=["E01", "E04"])
    before = plan.totals(plan.jobs(whole, H100), 1)

    def finish(*stages: str) -> dict[str, plan.Total]:
        def product(self: Products, run: Run) -> Product:
            return Product(tmp_path, "current" if run.metadata.name == "E01" else "missing")

        with monkeypatch.context() as patch:
            for stage in stages:
                patch.setattr(Products, stage, product)
            return plan.totals(plan.jobs(whole, H100), 1)

    trained = finish("model")
    assert (trained["E01-fitted"].train, trained["E01-fitted"].jobs) == (0, 2)
    assert trained["E01-fitted"].sample == before["E01-fitted"].sample > 0
    assert trained["E04-released"] == before["E04-released"]
    assert finish("samples", "scores")["E01-fitted"] == plan.Total(0, 0, 0, 0, 0, 0, 0, "done")


def test_parts_share_the_sampling(tmp_path: Path) -> None:
    budgets = {"paper": {"sampling": {"jobs": 4}}}
    whole, parted = (
        plan.jobs(grid(tmp_path, experiments=["E14_celeba"], **more), H100) for more in ({}, {"budgets": budgets})
    )
    one, four = plan.total(whole, 8), plan.total(parted, 8)
    assert four.jobs == one.jobs + 4
    assert four.hours == pytest.approx(one.hours)
    assert one.wall - four.wall == pytest.approx(one.sample * 3 / 4)


def test_inception_sees_samples_degraded_images_and_each_reference_once(tmp_path: Path) -> None:
    fast = cost.speed(H100, Network(name=cost.INCEPTION), 3, cost.INCEPTION_SIDE, "sample", "fp32").images_per_second

    def seen(*names: str) -> dict[str, float]:
        planned = plan.totals(plan.jobs(grid(tmp_path, experiments=list(names), fid=["clean"]), H100), 8)
        return {name: value.score * 3600 * fast for name, value in planned.items()}

    mnist = seen("E01", "A4")
    assert mnist["E01-fitted"] == pytest.approx(10_000 * (3 + 1 + 1))  # methods, degraded images, their originals
    assert mnist["A4-fitted"] == pytest.approx(
        10_000 * 4 * 2
    )  # the degraded images are E01's, and so are the originals
    celeba = seen("E14_celeba", "E15_celeba")
    assert celeba["E14_celeba-released"] == pytest.approx(6_400 * 6 + 27_000 + 3_000)
    assert celeba["E15_celeba-released"] == pytest.approx(6_400 * 4)


@pytest.mark.parametrize("images", [20, 24])
def test_planned_references_are_those_of_an_evaluation(
    experiment: Experiment, few_digits: Path, tmp_path: Path, images: int
) -> None:
    """Restored images have as many originals; generated images have both whole splits."""
    generating = experiment.model_copy(update={"degradation": {"name": "noise", "T": 2}})
    model = untrained(tmp_path / "model.safetensors", generating)
    sampling = Sampling(images=images, methods=["direct"], sets={"test": {}, "new": {"start": {"kind": "noise"}}})
    manifest = sampled(tmp_path, model, few_digits, **sampling.model_dump())
    Evaluator(manifest, few_digits, tmp_path / "features", [GABOR], torch.device("cpu")).evaluate(METADATA)
    evaluated = [json.loads(str(np.load(path)["identity"])) for path in (tmp_path / "features").iterdir()]
    run = Run(experiment=generating, metadata=METADATA, sampling=sampling, model=generating.run)
    planned = cost.references(run, data.info(few_digits)["counts"])
    assert {(split, n) for *_, split, n in planned} == {(each["split"], each["n"]) for each in evaluated}
    assert len(planned) == len(evaluated) == (3 if images == 20 else 2)


def test_an_imported_model_is_not_trained(tmp_path: Path) -> None:
    (tmp_path / "x.pt").touch()
    planned = plan.jobs(grid(tmp_path, experiments=["E01"], imports={"E01-fitted": str(tmp_path / "x.pt")}), H100)
    (job,) = (job for job in planned if job.stage == "import")
    assert job.hours == plan.total(planned, 1).train == 0
    assert job.disk == cost.model_bytes(
        grid(tmp_path, experiments=["E01"]).report_runs["E01-fitted"].experiment, imported=True
    )


def test_more_protocols_and_more_seeds_cost_more(tmp_path: Path) -> None:
    def whole(**own: Any) -> plan.Total:
        return plan.total(plan.jobs(grid(tmp_path, experiments=["E01"], **own), H100), 1)

    one, fids = whole(fid=["clean"]), whole(fid=["clean", "paper-float"])
    assert fids.score == pytest.approx(2 * one.score)
    assert whole(fid=[]).score == 0
    assert whole(seeds=[0, 1, 2]).train == pytest.approx(3 * one.train)


# Wall hours


def job(name: str, hours: float, *needs: str) -> Job:
    return Job(name, "run", "", "train", needs, hours)


@st.composite
def job_lists(draw: st.DrawFn) -> list[Job]:
    """Jobs that need some of those before them."""
    made: list[Job] = []
    for k in range(draw(st.integers(1, 9))):
        needs = draw(st.sets(st.sampled_from([one.name for one in made]), max_size=2)) if made else set()
        made.append(job(f"j{k}", draw(st.integers(0, 9)), *needs))
    return made


@given(job_lists(), st.integers(1, 6))
def test_laws_of_the_wall_hours(these: list[Job], devices: int) -> None:
    wall, total = plan.wall_hours(these, devices), sum(one.hours for one in these)
    longest = max(plan.chains(these).values())
    assert plan.wall_hours(these, devices + 1) <= wall
    assert wall == pytest.approx(max(longest, total / devices))
    assert plan.wall_hours(these, 1) == pytest.approx(total)
    assert plan.wall_hours(these, len(these)) == pytest.approx(longest)


def test_hours_fall_with_gpus_to_the_longest_chain(jobs: list[Job]) -> None:
    walls = [plan.total(jobs, n).wall for n in (1, 2, 4, 8, 16, 100)]
    assert walls == sorted(walls, reverse=True)
    assert walls[0] == pytest.approx(plan.total(jobs, 1).hours)
    assert walls[-1] == pytest.approx(max(plan.chains(jobs).values()))


# What is printed


def test_printed_plan_fits_and_names_its_sources(jobs: list[Job]) -> None:
    text = plan.as_text(jobs, H100, 8)
    assert max(map(len, text.splitlines())) <= plan.WIDTH
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert all(lines[name].endswith("counted") for name in ("E01-fitted", "A4-fitted", "total"))
    for word in ("counted, not measured", "assumed", "counted once", "longest chain"):
        assert word in " ".join(text.split())
    planned = json.loads(plan.as_json(jobs, H100, 8))
    total = planned["total"]
    assert f"{total['hours']:,.1f}" in lines["total"]
    assert sum(run["disk"] for run in planned["runs"].values()) == total["disk"]
    assert len(planned["jobs"]) == len(jobs)


def test_rows_on_a_cpu_are_measured_or_scaled(tmp_path: Path) -> None:
    planned = plan.totals(plan.jobs(grid(tmp_path, "laptop"), CPU), 1)
    assert planned["E01-fitted"].source == "measured"
    assert planned["E02-fitted"].source == "scaled"


def test_plan_takes_the_words_of_snakemake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overlay, results = tmp_path / "mine.yaml", f"results={tmp_path / 'results'}"
    overlay.write_text(yaml.safe_dump({"experiments": ["E01"], "fid": []}))

    def planned(*words: str) -> dict[str, Any]:
        ended = CliRunner().invoke(app, ["plan", *words, results, "--json"])
        assert ended.exit_code == 0, ended.output
        answer: dict[str, Any] = json.loads(ended.output)
        return answer

    mine = planned(str(CONFIG / "laptop.yaml"), str(overlay))
    assert (mine["devices"], mine["device"], set(mine["runs"])) == (1, CPU.title, {"E01-fitted", plan.DATA})
    assert mine["jobs"][-1]["name"] == "laptop/E01-fitted/score"
    here, cluster = planned("experiments=E01"), planned("experiments=E01", "--profile", "slurm")
    assert here["jobs"][-1]["name"] == "laptop/E01-fitted/score"
    assert cluster["jobs"][-1]["name"] == "paper/E01-fitted/score"
    assert (cluster["devices"], cluster["device"]) == (8, H100.title)
    assert not list(tmp_path.glob("results"))
    for arguments, words in (
        (["--device", "h10"], "unknown device 'h10': did you mean 'h100'?"),
        (["nowhere.yaml"], "cannot read nowhere.yaml"),
    ):
        error = CliRunner().invoke(app, ["plan", *arguments]).exception
        assert isinstance(error, ColdbenchError)
        assert words in str(error)


# The refusal on a CPU


def test_the_paper_is_refused_on_a_cpu_with_the_hours_of_the_plan(paper: Grid) -> None:
    longer = paper.report_runs["E01-fitted"].experiment
    hours = plan.totals(plan.jobs(paper, CPU), 1)["E01-fitted"].train
    with pytest.raises(ColdbenchError) as caught:
        refuse_on_cpu(longer, hours * 0.999, DEVICES)
    assert f"about {hours / 24:,.0f} days on two CPU cores (measured; limit: " in str(caught.value)
    refuse_on_cpu(longer, hours * 1.001, DEVICES)


def test_severities_of_a_plug_in_may_be_its_default(tmp_path: Path, experiment: Experiment) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import coldbench\n\n\n@coldbench.degradation('mine')\nclass Mine(coldbench.Degradation):\n    T: int = 7\n\n"
        "    def degrade(self, x0, t, drawn):\n        return x0 * 0.5\n"
    )
    plugins.use([str(file)])
    try:
        own = experiment.model_copy(update={"degradation": {"name": "mine"}})
        assert cost._severities(own) == 7
    finally:
        plugins.use([])
