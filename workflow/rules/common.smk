# The resolved grid, the places of files, and wildcards that match only what the grid holds. The checks are the package's.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake_interface_executor_plugins.settings import DeploymentMethod

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import write_json
from coldbench.core.validation import fingerprint
from coldbench.data import dataset
from coldbench.planning import layers
from coldbench.planning import workflow as planning
from coldbench.planning.grid import build, refuse_on_cpu, was_imported
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


def finished(budget, run):
    return Path(config.get("results", "results"), budget, run, "scores.parquet").exists()


LAYERS = checked(layers.of_snakemake, workflow.configfiles) if workflow.is_main_process else []
GRID = checked(build, config, finished, check_operators=workflow.is_main_process)
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
DATA, DEVICE = GRID.config.data, GRID.config.device  # resources and not params, so that another place reruns nothing
RESULTS, REPORTS = GRID.config.results, GRID.config.reports
RUNS = {(run.metadata.budget, name): run for name, run in GRID.all_runs.items()}
REPORT_RUNS = [(run.metadata.budget, name) for name, run in GRID.report_runs.items()]
PUBLISHED = Path(RESULTS, "published.json").exists()  # results of `coldbench publish` are shown, and nothing is run
if PUBLISHED:
    REPORT_RUNS = [path.parts[-3:-1] for path in sorted(Path(RESULTS).glob("*/*/scores.parquet"))]
RUN = f"{RESULTS}/{{budget}}/{{run}}"

if workflow.is_main_process and not PUBLISHED:
    for name, why in GRID.skipped.items():
        print(f"coldbench: {name} is left out: {why}", file=sys.stderr)
    for line in layers.without_effect(GRID, LAYERS):
        print(f"coldbench: {line}", file=sys.stderr)


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
    budget=one_of(budget for budget, _ in RUNS),
    run=one_of(NAMES),
    part=r"\d+",
    dataset="|".join(GRID.datasets),
    size=r"\d+",
    number=one_of(TABLES),


def of(wildcards):
    """The run that the wildcards name."""
    return RUNS[wildcards.budget, wildcards.run]


def run_file(wildcards):
    """The file with the facts of a run. It is a resource, because other words in it must not retrain a model."""
    return str(planning.run_file(of(wildcards), Path(RESULTS)))


def model(wildcards):
    """The model that a run samples: its own, or that of another experiment."""
    return f"{RESULTS}/{wildcards.budget}/{of(wildcards).model}/model.safetensors"


def prepared(wildcards):
    """The prepared data set of a run."""
    experiment = of(wildcards).experiment
    return f"{RESULTS}/data/{experiment.dataset}-{experiment.prepared_size}/info.json"


def partner(wildcards):
    """The prepared data set of a degradation that mixes in other images."""
    experiment = of(wildcards).experiment
    return [f"{RESULTS}/data/{experiment.partner}-{experiment.prepared_size}/info.json"] if experiment.partner else []


def partner_option(wildcards, input):
    return f"--partner {shlex.quote(str(Path(input.partner[0]).parent))}" if input.partner else ""


def weights(wildcards):
    """The fetched Inception weights; nothing if the configuration names their folder."""
    return [f"{RESULTS}/inception/fetched"] if FID and not GRID.config.inception else []


FID_OPTIONS = (
    f"--inception {shlex.quote(INCEPTION)} " + " ".join(f"--fid {protocol}" for protocol in FID) if FID else ""
)


def experiment_hash(wildcards):
    """A model is trained again when this hash changes. A training that is too long for this CPU is refused."""
    experiment = of(wildcards).experiment
    local = workflow.is_main_process and workflow.local_exec and not workflow.dryrun
    if local and not GPUS and not Path(RESULTS, wildcards.budget, wildcards.run, "model.safetensors").exists():
        checked(refuse_on_cpu, experiment, GRID.config.max_cpu_hours, Path(DEVICES))
    return experiment.fingerprint


def sampling_hash(wildcards):
    """A run is sampled again when this hash changes. The number of jobs changes no image."""
    return fingerprint(of(wildcards).sampling.model_copy(update={"jobs": 1}).model_dump())


def metadata_hash(wildcards):
    """A run is scored and drawn again when this hash changes."""
    return fingerprint(of(wildcards).metadata.model_dump())


def parts(wildcards):
    """The parts of a run's sampling, one job each."""
    jobs = of(wildcards).sampling.jobs
    return [f"{RUN}/parts/{k}-of-{jobs}.done" for k in range(1, jobs + 1)] if jobs > 1 else []


def each(runs, *files):
    """The files of every run."""
    return [f"{RESULTS}/{budget}/{run}/{file}" for budget, run in runs for file in files]


def threads_for(stage):
    return GRID.config.threads.get(stage, 1)


def scores(wildcards):
    """The scores of a page: those of one table, or all."""
    number = getattr(wildcards, "number", None)
    if number is None or PUBLISHED:  # a table ignores the scores of others
        return each(REPORT_RUNS, "scores.parquet")
    sources = TABLES[number].sources
    return each([key for key in REPORT_RUNS if RUNS[key].metadata.cell.table in sources], "scores.parquet")


def fetched(wildcards):
    """The data sets of the grid. Calibration also scores other data sets in the data folder."""
    return [f"{RESULTS}/data/{name}.fetched" for name in GRID.datasets]


def targets():
    """Every file that can be asked for."""
    pages = [f"{REPORTS}/{page}.html" for page in ("index", "discrepancies", "calibration", "figures")]
    pages += [f"{REPORTS}/table{number}.{end}" for number in TABLES for end in ("html", "csv", "tex", "json")]
    if PUBLISHED:
        return pages
    sets = [f"{RESULTS}/data/{name}-{size}" for name, sizes in GRID.datasets.items() for size in sizes]
    files = [f"{folder}/{file}" for folder in sets for file in ("info.json", "train.npy", "test.npy")]
    files += [f"{RESULTS}/scores.parquet", f"{RESULTS}/scores.csv"]
    files += each([key for key, run in RUNS.items() if run.trains], "model.safetensors", "model.jsonl")
    return pages + files + each(RUNS, "samples.json", "scores.parquet", "figures.json", "figures")


if workflow.is_main_process:
    checked(planning.check_writable, "results", RESULTS)
    checked(planning.check_writable, "reports", REPORTS)
    checked(planning.refuse_unknown_targets, targets(), (RESULTS, REPORTS, "results", "reports"))
elif not PUBLISHED:  # the configuration may have been edited while the job was queued
    checked(planning.write_run_files, RUNS.values(), Path(RESULTS))


onstart:  # not in a dry run
    if not PUBLISHED:
        checked(planning.write_run_files, RUNS.values(), Path(RESULTS))
