# coldbench: from images to the tables of "Cold Diffusion" (arXiv 2208.09392).
#
#   snakemake                          the report at this machine's budget (profiles/default)
#   snakemake reports/table1.html      one table, running only what is missing
#   snakemake --profile slurm all      tables and figures at the paper's budget, on a cluster
#   snakemake -n                       the plan

from snakemake.utils import min_version

min_version("9.27")


configfile: "workflow/config/paper.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/pages.smk"


if GRID.config.container:  # used with --sdm apptainer

    container: GRID.config.container


if not PUBLISHED:  # published results have no models and images, so they are only rendered

    include: "workflow/rules/data.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/sample.smk"
    include: "workflow/rules/evaluate.smk"


include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{REPORTS}/index.html",
        []
        if PUBLISHED
        else expand(f"{RESULTS}/{{budget}}/scores.parquet", budget=sorted({budget for budget, _ in REPORT_RUNS})),
        expand("{reports}/table{number}.html", reports=REPORTS, number=TABLES),
        f"{REPORTS}/methods.html",
        f"{REPORTS}/figures.html",
        f"{REPORTS}/discrepancies.html",
        f"{REPORTS}/calibration.html" if SHOWN_CALIBRATION else [],
    localrule: True
