# The resolved grid, where things lie, and wildcards that only match what exists. No science here.
import csv
import json
import re
import os
import shlex
import sys
from difflib import get_close_matches
from pathlib import Path

from snakemake_interface_executor_plugins.settings import DeploymentMethod

from coldbench.data import dataset
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import write_json
from coldbench.planning.grid import build, refuse_on_cpu, was_imported
from coldbench.report.layout import TABLES

PAPER = "workflow/paper/tables.csv"
INTERPRETATIONS = "workflow/config/calibration.yaml"
DEVICES = "workflow/config/devices.yaml"


def stop(message):
    """End before any work with one line."""
    sys.exit(f"coldbench: error: {message}")


def finished(budget, run):
    return Path(config["results"], budget, run, "scores.parquet").exists()


try:
    GRID = build(config, finished, check_operators=workflow.is_main_process)
except ColdbenchError as error:
    stop(error)


with open(PAPER, encoding="utf-8", newline="") as stream:
    PRINTED = {(line["table"], line["row"]) for line in csv.DictReader(stream)}
for name, entry in GRID.config.grid.items():
    if entry.cell.row and (entry.cell.table, entry.cell.row) not in PRINTED:
        rows = [row for table, row in PRINTED if table == entry.cell.table]
        stop(unknown(f"row of table {entry.cell.table} in grid.{name}.cell", entry.cell.row, rows))


# Jobs run the code of this checkout, the same that plans them, by workflow/bin/coldbench: with the Python that runs
# Snakemake, also where its environment is not activated, or with that of a conda environment or an image (--sdm).
DEPLOYED = {DeploymentMethod.CONDA, DeploymentMethod.APPTAINER} & set(workflow.deployment_settings.deployment_method)
COMMANDS = [f"{workflow.basedir}/workflow/bin", *([] if DEPLOYED else [str(Path(sys.executable).parent)])]
if DeploymentMethod.APPTAINER in DEPLOYED and not GRID.config.container:
    stop("--sdm apptainer needs an image: --config container=build/coldbench.sif (made by `make sif`)")

# `on GPUS THREADS COMMAND`: in a Slurm job the command gets a step of its own, with a process for each GPU. Where Slurm
# tracks processes by cgroups, only those at the head of a step are told that their time is over; and `exec` leaves no
# shell that would die of that signal before the work is saved. In an image there is no srun: there a training that is
# killed loses what it did since its last checkpoint.
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
DATA, DEVICE = GRID.config.data, GRID.config.device  # resources, not params: where things run reruns nothing
RESULTS, REPORTS = GRID.config.results, GRID.config.reports
RUNS = {(run.metadata.budget, name): run for name, run in GRID.all_runs.items()}
MADE = {(run.metadata.budget, name): run for name, run in GRID.report_runs.items()}
PUBLISHED = Path(RESULTS, "published.json").exists()  # by `coldbench publish`: nothing is made there, but shown
SHOWN = [path.parts[-3:-1] for path in sorted(Path(RESULTS).glob("*/*/scores.parquet"))] if PUBLISHED else list(MADE)
RUN = f"{RESULTS}/{{budget}}/{{run}}"

for name, why in GRID.skipped.items():
    if workflow.is_main_process and not PUBLISHED:
        print(f"coldbench: {name} is left out: {why}", file=sys.stderr)


def one_of(names):
    """A wildcard that is one of these names, or nothing."""
    return "|".join(map(re.escape, sorted(set(names)))) or "(?!)"


EMBEDDED = all(dataset(name).embedded for name in GRID.datasets)
CALIBRATION = f"{RESULTS}/calibration.parquet"
if EMBEDDED or PUBLISHED and not Path(CALIBRATION).exists():
    CALIBRATION = []
CALIBRATED = f"{REPORTS}/calibration.html" if CALIBRATION else []
NAMES = {run for _, run in RUNS}
BORROWED = {name for (_, name), run in RUNS.items() if not run.trains}
FID, INCEPTION = GRID.config.fid, GRID.config.inception or f"{RESULTS}/inception"
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


wildcard_constraints:
    budget="|".join({re.escape(budget) for budget, _ in RUNS}),
    run=one_of(NAMES),
    part=r"\d+",
    dataset="|".join(GRID.datasets),
    size=r"\d+",
    number=one_of(TABLES),


def of(wildcards):
    """The run that the wildcards name."""
    return RUNS[wildcards.budget, wildcards.run]


def model(wildcards):
    """The model that a run samples: its own, or another experiment's."""
    return f"{RESULTS}/{wildcards.budget}/{of(wildcards).model}/model.safetensors"


def prepared(wildcards):
    """The prepared data set of a run."""
    experiment = of(wildcards).experiment
    return f"{RESULTS}/data/{experiment.dataset}-{experiment.prepared_size}/info.json"


def partner(wildcards):
    """The prepared data set that a run's degradation mixes in, if it does."""
    experiment = of(wildcards).experiment
    return [f"{RESULTS}/data/{experiment.partner}-{experiment.prepared_size}/info.json"] if experiment.partner else []


def partner_option(wildcards, input):
    return f"--partner {shlex.quote(str(Path(input.partner[0]).parent))}" if input.partner else ""


def weights(wildcards):
    """What FID's features need, fetched once on the submitting machine; nothing where the folder is configured."""
    return [f"{RESULTS}/inception/fetched"] if FID and not GRID.config.inception else []


FID_OPTIONS = (
    f"--inception {shlex.quote(INCEPTION)} " + " ".join(f"--fid {protocol}" for protocol in FID) if FID else ""
)


def sampling(wildcards):
    """How a run is sampled, as JSON; how many jobs share the work changes nothing."""
    return of(wildcards).sampling.model_copy(update={"jobs": 1}).model_dump_json()


def parts(wildcards):
    """The parts into which sampling is divided, one job each."""
    jobs = of(wildcards).sampling.jobs
    return [f"{RUN}/parts/{k}-of-{jobs}.done" for k in range(1, jobs + 1)] if jobs > 1 else []


def each(runs, *files):
    """The files of every run."""
    return [f"{RESULTS}/{budget}/{run}/{file}" for budget, run in runs for file in files]


def threads_for(stage):
    return GRID.config.threads.get(stage, 1)


def science(wildcards):
    """The experiment as JSON: a model is trained again when this changes, and for no other reason."""
    experiment = of(wildcards).experiment
    model = Path(RESULTS, wildcards.budget, wildcards.run, "model.safetensors")
    here = workflow.is_main_process and workflow.local_exec and not workflow.dryrun
    if here and not GPUS and not model.exists():
        try:
            refuse_on_cpu(experiment, GRID.config.max_cpu_hours, Path(DEVICES))
        except ColdbenchError as error:
            stop(error)
    return experiment.model_dump_json()


def scores(wildcards):
    """The scores that a page shows: of one table if it is a table's, else all."""
    number = getattr(wildcards, "number", None)
    if number is None or PUBLISHED:  # a table passes over what is not its own
        return each(SHOWN, "scores.parquet")
    wanted = [key for key, run in MADE.items() if run.metadata.cell.table in TABLES[number].sources]
    return each(wanted, "scores.parquet")


def planned_rows(wildcards):
    """Of every row of the paper in the grid its experiment, and why that is skipped."""
    shown = {run.metadata.name for run in GRID.report_runs.values()}
    rows = []
    for name, entry in GRID.config.grid.items():
        if entry.cell.row:
            other = "it is not among the chosen experiments and data sets"
            skipped = "" if name in shown else GRID.skipped.get(name, other)
            rows.append({"experiment": name, "table": entry.cell.table, "row": entry.cell.row, "skipped": skipped})
    return rows


def each_fetched(wildcards):
    """The sources of the grid; what else lies in the data folder is calibrated as well."""
    return [f"{RESULTS}/data/{name}.fetched" for name in GRID.datasets]


def made_from_data():
    """What can be asked for beside the pages of the report."""
    sets = [f"{RESULTS}/data/{name}-{size}" for name, sizes in GRID.datasets.items() for size in sizes]
    files = [f"{folder}/{file}" for folder in sets for file in ("info.json", "train.npy", "test.npy")]
    own = [key for key, run in RUNS.items() if run.trains]
    files += [f"{RESULTS}/scores.parquet", f"{RESULTS}/scores.csv", *each(own, "model.safetensors", "model.jsonl")]
    return files + each(RUNS, "samples.json", "scores.parquet", "figures.json", "figures")


def check_targets():
    """A mistyped target ends here, with the nearest valid one."""
    valid = [f"{REPORTS}/{page}.html" for page in ("index", "discrepancies", "calibration", "figures")]
    valid += [f"{REPORTS}/table{number}.{end}" for number in TABLES for end in ("html", "csv", "tex", "json")]
    valid += [] if PUBLISHED else made_from_data()
    for option, target in zip(sys.argv, sys.argv[1:]):  # Snakemake reads its targets only after the rules
        target = os.path.relpath(target) if target.startswith("./") else target
        ours = option != "--report" and target.startswith((f"{RESULTS}/", f"{REPORTS}/", "results/", "reports/"))
        if ours and target not in valid and not Path(target).exists():
            close = get_close_matches(target, valid, n=1, cutoff=0.3)
            stop(f"unknown target '{target}'" + (f": did you mean '{close[0]}'?" if close else ""))


def check_writable(key, folder):
    """A folder that cannot be written into ends here, before Snakemake removes or makes anything."""
    there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        stop(f"{key} folder '{folder}': cannot write into {there}")


if workflow.is_main_process:
    check_writable("results", RESULTS)
    check_writable("reports", REPORTS)
    check_targets()
