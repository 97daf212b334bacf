# Scores of every set and method, also of the degraded images themselves, and the images of the report as sprites. One
# job makes both, because starting a process takes longer than drawing.
CACHE = f"{RESULTS}/features"


rule evaluate:
    input:
        to_make_first(lambda w: PRODUCTS.evaluation(of(w))),
    output:
        scores=update(f"{RUN}/scores.parquet"),
        list=update(f"{RUN}/figures.json"),
        pictures=update(directory(f"{RUN}/figures")),
    log:
        f"{RUN}/logs/evaluate.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        run_file=run_file,
        gpu=GPUS * bool(FID),
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        fid=FID_OPTIONS,
        cache=CACHE,
        samples=path_of(PRODUCTS.samples),
        log=lambda w: str(PRODUCTS.model(of(w)).file.with_suffix(".jsonl")),
        data=prepared,
        partner=partner_option,
    shell:
        "coldbench evaluate {resources.run_file:q} {params.samples:q} --data {params.data:q} --out {output.scores:q}"
        " --figures {output.list:q} --training-log {params.log:q}"
        " --feature-cache {params.cache:q} {params.fid} {params.partner} --device {resources.device} --threads {threads} --log {log:q}"


# One tidy table of everything of a budget that was scored, whatever was selected.
rule merge_scores:
    input:
        to_make_first(merged_table),
    output:
        table=update(f"{RESULTS}/{{budget}}/scores.parquet"),
        csv=update(f"{RESULTS}/{{budget}}/scores.csv"),
    log:
        f"{RESULTS}/logs/merge-scores-{{budget}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scores=lambda w: [str(source.file) for source in merged_table(w).sources],
    shell:
        "coldbench merge-scores {params.scores:q} --out {output.table:q} --log {log:q}"


# Every interpretation of the printed Degraded cells, on the available data sets; no model is needed.
rule calibrate:
    input:
        to_make_first(lambda w: CALIBRATION),
    output:
        scores=update(f"{RESULTS}/calibration.parquet"),
        csv=update(f"{RESULTS}/calibration.csv"),
    log:
        f"{RESULTS}/logs/calibrate.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        folder=DATA,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        interpretations=INTERPRETATIONS,
        paper=PAPER,
    shell:
        "coldbench calibrate {params.interpretations:q} --paper {params.paper:q} --data {resources.folder:q}"
        " --out {output.scores:q} --device {resources.device} --threads {threads} --log {log:q}"
