# Every method of one model. Shards are no outputs: finished ones survive a killed job.


rule sample:
    input:
        model=f"{RUN}/model.safetensors",
        data=prepared,
        partner=partner,
    output:
        f"{RUN}/samples.json",
    log:
        f"{RUN}/logs/sample.log",
    benchmark:
        f"{RUN}/logs/sample.tsv"
    conda:
        "../../environment.yml"
    threads: threads_for("sample")
    resources:
        device=DEVICE,
        partner=partner_option,
        gpu=GPUS,
        mem_mb=16000,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        sampling=lambda w: of(w).sampling.model_dump_json(),
        data=subpath(input.data, parent=True),
        work=f"{RUN}/shards",
    shell:
        "coldbench sample {input.model:q} --sampling {params.sampling:q} --data {params.data:q} --out {output:q}"
        " --work {params.work:q} {resources.partner} --device {resources.device} --threads {threads} --log {log:q}"
