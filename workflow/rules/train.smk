# One model a job. Checkpoints are no outputs: they survive a killed job, and the next one goes on from them.


rule train:
    input:
        data=prepared,
    output:
        model=f"{RUN}/model.safetensors",
        log=f"{RUN}/model.jsonl",
    log:
        f"{RUN}/logs/train.log",
    benchmark:
        f"{RUN}/logs/train.tsv"
    conda:
        "../../environment.yml"
    threads: threads_for("train")
    resources:
        device=DEVICE,
        gpu=GPUS,
        mem_mb=16000,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        experiment=science,
        data=subpath(input.data, parent=True),
        work=f"{RUN}/checkpoints",
    shell:
        "coldbench train --experiment {params.experiment:q} --data {params.data:q} --out {output.model:q}"
        " --work {params.work:q} --device {resources.device} --threads {threads} --log {log:q}"
