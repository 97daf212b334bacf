# Scores of every set and method, also of the degraded images themselves, and the images of the report.
CACHE = f"{RESULTS}/features"


rule evaluate:
    input:
        weights,
        samples=f"{RUN}/samples.json",
        data=prepared,
        partner=partner,
    output:
        f"{RUN}/scores.parquet",
    log:
        f"{RUN}/logs/evaluate.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        partner=partner_option,
        run_file=run_file,
        gpu=GPUS * bool(FID),
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        fid=FID_OPTIONS,
        cache=CACHE,
        metadata=metadata_hash,
        data=subpath(input.data, parent=True),
    shell:
        "coldbench evaluate {resources.run_file:q} {input.samples:q} --data {params.data:q} --out {output:q}"
        " --feature-cache {params.cache:q} {params.fid} {resources.partner} --device {resources.device} --threads {threads} --log {log:q}"


# The images of a run, as sprites.
rule draw_figures:
    input:
        scores=f"{RUN}/scores.parquet",  # leaves the references' features in the cache
        samples=f"{RUN}/samples.json",
        log=lambda w: str(Path(model(w)).with_suffix(".jsonl")),
        data=prepared,
        partner=partner,
    output:
        list=f"{RUN}/figures.json",
        pictures=directory(f"{RUN}/figures"),
    log:
        f"{RUN}/logs/draw-figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        partner=partner_option,
        run_file=run_file,
    params:
        cache=CACHE,
        metadata=metadata_hash,
        data=subpath(input.data, parent=True),
    shell:
        "coldbench draw-figures {resources.run_file:q} {input.samples:q} {input.log:q} --data {params.data:q}"
        " --feature-cache {params.cache:q} {resources.partner} --out {output.list:q} --log {log:q}"


# One tidy table of everything that was scored.
rule merge_scores:
    input:
        scores,
    output:
        table=f"{RESULTS}/scores.parquet",
        csv=f"{RESULTS}/scores.csv",
    log:
        f"{RESULTS}/logs/merge-scores.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "coldbench merge-scores {input:q} --out {output.table:q} --log {log:q}"


# Every interpretation of the printed Degraded cells, on the available data sets; no model is needed.
rule calibrate:
    input:
        fetched,
        interpretations=INTERPRETATIONS,
        paper=PAPER,
    output:
        scores=f"{RESULTS}/calibration.parquet",
        csv=f"{RESULTS}/calibration.csv",
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
    shell:
        "coldbench calibrate {input.interpretations:q} --paper {input.paper:q} --data {resources.folder:q}"
        " --out {output.scores:q} --device {resources.device} --threads {threads} --log {log:q}"
