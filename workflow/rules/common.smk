# The resolved grid, the places of files, and wildcards that match only what the grid holds. The checks are the package's.
import os
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.persistence import FileBackupMixin
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import check_place, read_json, write_json
from coldbench.data import dataset
from coldbench.planning import layers
from coldbench.planning import workflow as planning
from coldbench.planning.checks import refuse_on_cpu
from coldbench.planning.grid import build
from coldbench.planning.products import Products, page, product, was_imported
from coldbench.planning.reuse import FinishedRuns
from coldbench.report.layout import TABLES

PAPER = "workflow/paper/tables.csv"
INTERPRETATIONS = "workflow/config/calibration.yaml"
DEVICES = "workflow/config/devices.yaml"


def checked(function, *arguments, **options):
    """The function's result; a ColdbenchError ends everything with one line."""
    try:
        return function(*arguments, **options)
    except ColdbenchError as error:
        sys.exit(f"coldbench: error: {error}")


planning.keep_outputs(FileBackupMixin)
checked(planning.check_checkout, Path(workflow.basedir))
LAYERS = checked(layers.of_snakemake, workflow.configfiles) if workflow.is_main_process else []
config["plugins"] = checked(layers.plugin_files, workflow.configfiles)
FINISHED = FinishedRuns(config)
GRID = checked(build, config, FINISHED, check_operators=workflow.is_main_process)
checked(planning.check_paper_rows, GRID, Path(PAPER))


# Jobs run the code of this checkout by workflow/bin/coldbench. Their Python is that of Snakemake, or that of a conda
# environment or an image (--sdm).
DEPLOYED = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER} & set(workflow.deployment_settings.deployment_method)
COMMANDS = [f"{workflow.basedir}/workflow/bin", *([] if DEPLOYED else [str(Path(sys.executable).parent)])]
if DeploymentMethod.APPTAINER in DEPLOYED and not GRID.config.container:
    sys.exit("coldbench: error: --sdm apptainer needs an image: --config container=build/coldbench.sif (`make sif`)")

# `on GPUS THREADS COMMAND`: in a Slurm job the command gets its own step, with one process for each GPU. Under cgroups
# Slurm signals only the first processes of a step before it ends a job. `exec` leaves no shell that would die of the
# signal before the work is saved. An image has no srun: a killed training there loses the work since its last checkpoint.
ON = '"${{@:3}}"'
if not workflow.is_main_process and "SLURM_JOB_ID" in os.environ and DeploymentMethod.APPTAINER not in DEPLOYED:
    ON = f'exec srun --overlap --ntasks=$(($1 > 1 ? $1 : 1)) --cpus-per-task="$2" --cpu-bind=none {ON}'
shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(':'.join(COMMANDS))}:$PATH; on() {{{{ {ON}; }}}}; ")


def on_gpu():
    """Whether training and sampling use a GPU of this machine; on a cluster the profile asks for one."""
    if GRID.config.device == "auto" and workflow.is_main_process:
        import torch

        return torch.cuda.is_available()
    return GRID.config.device == "cuda"


GPUS = int(on_gpu())
DATA, DEVICE = GRID.config.data, GRID.config.device
RESULTS, REPORTS = GRID.config.results, GRID.config.reports
RUN = f"{RESULTS}/{{budget}}/{{run}}"
FID, INCEPTION = GRID.config.fid, GRID.config.inception or f"{RESULTS}/inception"
WEIGHTS = f"{RESULTS}/inception/fetched" if FID and not GRID.config.inception else ""
PUBLISHED = Path(RESULTS, "published.json").exists()  # results of `coldbench publish` are shown, and nothing is run

# The runs of this configuration, and the finished ones of other experiments and data sets: a selection adds to the
# report and to the tables of scores, and takes nothing out of them.
RUNS = GRID.by_budget
UNFILTERED = checked(planning.unfiltered, config, FINISHED) if workflow.is_main_process else GRID
EVERY = UNFILTERED.by_budget | RUNS
PRODUCTS = Products(EVERY, Path(RESULTS), Path(DATA), FID, Path(WEIGHTS) if WEIGHTS else None)
REPORT_RUNS = [(run.metadata.budget, name) for name, run in GRID.report_runs.items()]
REPORT_RUNS += [
    (run.metadata.budget, name)
    for name, run in UNFILTERED.report_runs.items()
    if name not in GRID.report_runs and PRODUCTS.is_shown(run)
]
if PUBLISHED:
    REPORT_RUNS = [path.parts[-3:-1] for path in sorted(Path(RESULTS).glob("*/*/scores.parquet"))]

if workflow.is_main_process and not PUBLISHED:
    for name, why in GRID.skipped.items():
        print(f"coldbench: {name} is left out: {why}", file=sys.stderr)
    for file, why in FINISHED.refused.items():
        print(f"coldbench: {file} does not count as finished: {why}", file=sys.stderr)
    for name, run in UNFILTERED.report_runs.items():
        if name not in GRID.report_runs and (why := PRODUCTS.why_hidden(run)):
            print(f"coldbench: {name} is not shown: {why}", file=sys.stderr)
    for line in layers.without_effect(GRID, LAYERS):
        print(f"coldbench: {line}", file=sys.stderr)


# Without true data no calibration is made, and a selection of experiments does not start one.
CALIBRATION = None
if PUBLISHED and Path(RESULTS, "calibration.parquet").exists():
    CALIBRATION = product([Path(RESULTS, "calibration.parquet")], str)
elif not PUBLISHED and not all(dataset(name).embedded for name in GRID.datasets):
    CALIBRATION = PRODUCTS.calibration(
        Path(RESULTS, "calibration.parquet"),
        checked(planning.calibrated_datasets, Path(INTERPRETATIONS)),
        GRID.datasets,
        [Path(INTERPRETATIONS), Path(PAPER)],
    )
SHOWN_CALIBRATION = CALIBRATION
if CALIBRATION and (GRID.config.experiments or GRID.config.datasets) and CALIBRATION.status != "current":
    SHOWN_CALIBRATION = None


def one_of(names):
    """A wildcard that is one of these names, or nothing."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


NAMES = {run for _, run in RUNS}
BORROWED = {name for (_, name), run in RUNS.items() if not run.trains}
IMPORTED = {
    run
    for budget, run in RUNS
    if run in GRID.config.imports or was_imported(Path(RESULTS, budget, run, "model.safetensors"))
}
TRAINING_OPTIONS = " ".join(
    [
        *(["--compile"] if GRID.config.compile else []),
        *(["--channels-last"] if GRID.config.channels_last else []),
        f"--checkpoint-every {GRID.config.checkpoint_every:g}",
        f"--max-cpu-hours {GRID.config.max_cpu_hours:g} --devices {DEVICES}",
    ]
)
FID_OPTIONS = (
    f"--inception {shlex.quote(INCEPTION)} " + " ".join(f"--fid {protocol}" for protocol in FID) if FID else ""
)
PLUGIN_OPTIONS = " ".join(f"--plugin {shlex.quote(file)}" for file in GRID.config.plugins)


wildcard_constraints:
    budget=one_of(budget for budget, _ in RUNS),
    run=one_of(NAMES),
    part=r"\d+",
    dataset=one_of(GRID.datasets),
    size=r"\d+",
    number=one_of(TABLES),


# What is current has no inputs, so that no date can make it run again; what is outdated is forced. So the inputs of a
# job are the files that other jobs have yet to make, and its commands get all paths as params.
def to_make_first(product_of):
    """An input function: the files that have to be made before the product that the wildcards name."""

    def inputs(wildcards):
        product = checked(product_of, wildcards)
        if product.status in ("outdated", "incomplete") and workflow.is_main_process:
            if str(product.file) not in workflow.dag.forcefiles:
                done = "completed" if product.status == "incomplete" else "made again"
                print(f"coldbench: {product.file} is {done}: {product.reason}", file=sys.stderr)
            workflow.dag.forcefiles.add(str(product.file))
        return product.to_make_first

    return inputs


def of(wildcards):
    """The run that the wildcards name."""
    return RUNS[wildcards.budget, wildcards.run]


def path_of(product_of):
    """A params function: the file of a run's product."""
    return lambda wildcards: str(product_of(of(wildcards)).file)


def prepared(wildcards):
    """The folder of a run's prepared data."""
    return str(PRODUCTS.data_of(of(wildcards))[0].file.parent)


def partner_option(wildcards):
    """The option for the prepared data of a degradation that mixes in other images."""
    return "".join(f"--partner {shlex.quote(str(part.file.parent))}" for part in PRODUCTS.data_of(of(wildcards))[1:])


def run_file(wildcards):
    """The file with the facts of a run."""
    return str(planning.run_file(of(wildcards), Path(RESULTS)))


def trained_model(wildcards):
    """The model of a run that trains it. A training that is too long for this CPU is refused before anything runs."""
    product, run = PRODUCTS.model(of(wildcards)), of(wildcards)
    local = workflow.is_main_process and workflow.local_exec and not workflow.dryrun
    if local and not GPUS and not PRODUCTS.has_model(run):
        refuse_on_cpu(run.experiment, GRID.config.max_cpu_hours, Path(DEVICES))
    return product


def parts(wildcards):
    """The parts of a run's sampling, one job each; none where nothing is to be sampled."""
    jobs = of(wildcards).sampling.jobs
    if jobs == 1 or PRODUCTS.samples(of(wildcards)).status == "current":
        return []
    return [f"{RUN}/parts/{k}-of-{jobs}.done" for k in range(1, jobs + 1)]


def each(runs, *files):
    """The files of every run."""
    return [f"{RESULTS}/{budget}/{run}/{file}" for budget, run in runs for file in files]


def threads_for(stage):
    return GRID.config.threads.get(stage, 1)


def scores_of(keys):
    """The scores of some runs as products; published ones are what they are."""
    if PUBLISHED:
        return [product([Path(RESULTS, *key, "scores.parquet")], str) for key in keys]
    return [PRODUCTS.scores(EVERY[key]) for key in keys]


def figures_of(keys):
    """The figures of some runs as products; published ones are what they are."""
    if PUBLISHED:
        return [product([Path(RESULTS, *key, "figures.json")], str) for key in keys]
    return [PRODUCTS.figures(EVERY[key]) for key in keys]


def merged_runs(wildcards):
    """The runs of a budget in its table: those of this configuration, and finished ones of other experiments."""
    return [EVERY[key] for key in REPORT_RUNS if key[0] == wildcards.budget]


def merged_table(wildcards):
    """The table of everything of a budget that was scored."""
    return PRODUCTS.merged(Path(RESULTS, wildcards.budget, "scores.parquet"), merged_runs(wildcards))


def score_runs(wildcards):
    """The runs of a page: those of one table, or all."""
    number = getattr(wildcards, "number", None)
    if number is None or PUBLISHED:  # a table ignores the scores of others
        return REPORT_RUNS
    return [key for key in REPORT_RUNS if EVERY[key].metadata.cell.table in TABLES[number].sources]


def score_files(wildcards):
    """The scores of a page."""
    return each(score_runs(wildcards), "scores.parquet")


def targets():
    """Every file that can be asked for."""
    pages = [f"{REPORTS}/{page}.html" for page in ("index", "methods", "discrepancies", "calibration", "figures")]
    pages += [f"{REPORTS}/methods.{end}" for end in ("csv", "tex", "json")]
    pages += [f"{REPORTS}/table{number}.{end}" for number in TABLES for end in ("html", "csv", "tex", "json")]
    if PUBLISHED:
        return pages
    sets = [f"{RESULTS}/data/{name}-{size}" for name, sizes in GRID.datasets.items() for size in sizes]
    files = [f"{folder}/{file}" for folder in sets for file in ("info.json", "train.npy", "test.npy")]
    files += [f"{RESULTS}/{budget}/scores.{end}" for budget, _ in RUNS for end in ("parquet", "csv")]
    files += each([key for key, run in RUNS.items() if run.trains], "model.safetensors", "model.jsonl")
    return pages + files + each(RUNS, "samples.json", "scores.parquet", "figures.json", "figures")


if workflow.is_main_process:
    for folder in (RESULTS, REPORTS):
        checked(check_place, Path(folder), folder=True)
    checked(planning.refuse_unknown_targets, targets(), (RESULTS, REPORTS, "results", "reports"))
elif workflow.remote_exec and not PUBLISHED:  # the configuration may have been edited while the job was queued
    checked(planning.write_run_files, RUNS.values(), Path(RESULTS))


onstart:  # not in a dry run
    jobs = list(workflow.dag.needrun_jobs())
    checked(planning.check_places, [file for job in jobs for file in (*job.output, *job.log)])
    if any("run_file" in job.rule.resources for job in jobs):
        checked(planning.write_run_files, RUNS.values(), Path(RESULTS))
