# Scores. The degraded test set needs no model, so it is scored under every protocol.


rule degraded:
    input:
        data=prepared,
        partner=partner,
    output:
        f"{RUN}/degraded.parquet",
    log:
        f"{RUN}/logs/degraded.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        partner=partner_option,
        mem_mb=8000,
        runtime=60,
    params:
        experiment=lambda w: untrained(of(w).experiment),
        about=lambda w: of(w).about.model_dump_json(),
        images=lambda w: (f"--images {of(w).sampling.images}" if of(w).sampling.images else ""),
        data=subpath(input.data, parent=True),
    shell:
        "coldbench degraded --experiment {params.experiment:q} --about {params.about:q} --data {params.data:q}"
        " {params.images} {resources.partner} --out {output:q} --device {resources.device} --threads {threads} --log {log:q}"


rule evaluate:
    input:
        samples=f"{RUN}/samples.json",
        data=prepared,
    output:
        f"{RUN}/scores.parquet",
    log:
        f"{RUN}/logs/evaluate.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        mem_mb=8000,
        runtime=60,
    params:
        about=lambda w: of(w).about.model_dump_json(),
        data=subpath(input.data, parent=True),
    shell:
        "coldbench evaluate {input.samples:q} --about {params.about:q} --data {params.data:q} --out {output:q}"
        " --device {resources.device} --threads {threads} --log {log:q}"


# Every reading of the printed Degraded cells, on whatever data sets are there: no model is needed.
rule calibrate:
    input:
        each_fetched,
        readings=READINGS,
        paper=PAPER,
    output:
        scores=f"{RESULTS}/calibration.parquet",
        csv=f"{RESULTS}/calibration.csv",
        page=f"{REPORTS}/calibration.html",
    log:
        f"{RESULTS}/logs/calibrate.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        folder=DATA,
        mem_mb=8000,
        runtime=60,
    shell:
        "coldbench calibrate {input.readings:q} --paper {input.paper:q} --data {resources.folder:q}"
        " --out {output.scores:q} --page {output.page:q} --device {resources.device} --threads {threads} --log {log:q}"
