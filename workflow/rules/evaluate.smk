# Scores of every set and method, also of the degraded images themselves, and the images of the report.
CACHE = f"{RESULTS}/features"


rule evaluate:
    input:
        to_make_first(lambda w: PRODUCTS.scores(of(w))),
    output:
        update(f"{RUN}/scores.parquet"),
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
        data=prepared,
        partner=partner_option,
    shell:
        "coldbench evaluate {resources.run_file:q} {params.samples:q} --data {params.data:q} --out {output:q}"
        " --feature-cache {params.cache:q} {params.fid} {params.partner} --device {resources.device} --threads {threads} --log {log:q}"


# The images of a run, as sprites.
rule draw_figures:
    input:
        to_make_first(lambda w: PRODUCTS.figures(of(w))),  # after the scores, whose job leaves features in the cache
    output:
        list=update(f"{RUN}/figures.json"),
        pictures=update(directory(f"{RUN}/figures")),
    log:
        f"{RUN}/logs/draw-figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        run_file=run_file,
    params:
        cache=CACHE,
        samples=path_of(PRODUCTS.samples),
        log=lambda w: str(PRODUCTS.model(of(w)).file.with_suffix(".jsonl")),
        data=prepared,
        partner=partner_option,
    shell:
        "coldbench draw-figures {resources.run_file:q} {params.samples:q} {params.log:q} --data {params.data:q}"
        " --feature-cache {params.cache:q} {params.partner} --out {output.list:q} --log {log:q}"


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
