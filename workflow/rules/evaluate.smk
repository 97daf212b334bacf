# Scores. The degraded test set needs no model, so it is scored under every protocol.


rule degraded:
    input:
        data=prepared,
    output:
        f"{RUN}/degraded.parquet",
    log:
        f"{RUN}/logs/degraded.log",
    conda:
        "../../environment.yml"
    threads: threads_for("evaluate")
    resources:
        device=DEVICE,
        mem_mb=8000,
        runtime=60,
    params:
        experiment=lambda w: untrained(of(w).experiment),
        about=lambda w: of(w).about.model_dump_json(),
        images=lambda w: (f"--images {of(w).sampling.images}" if of(w).sampling.images else ""),
        data=subpath(input.data, parent=True),
    shell:
        "coldbench degraded --experiment {params.experiment:q} --about {params.about:q} --data {params.data:q}"
        " {params.images} --out {output:q} --device {resources.device} --threads {threads} --log {log:q}"


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
