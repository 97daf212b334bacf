# One model a job. Checkpoints are no outputs: they survive a killed job, and the next one goes on from them.


def science(wildcards):
    """The experiment as JSON: a model is trained again when this changes, and for no other reason."""
    experiment = of(wildcards).experiment
    local = GRID.config.device != "cuda" and not workflow.non_local_exec
    if local and workflow.is_main_process and not workflow.dryrun:
        model = Path(RESULTS, wildcards.budget, wildcards.run, "model.safetensors")
        try:
            if not model.exists() and not has_gpu():
                refuse_on_cpu(experiment, GRID.config.max_cpu_hours)
        except ColdbenchError as error:
            stop(error)
    return experiment.model_dump_json()


def has_gpu():
    import torch

    return GRID.config.device == "auto" and torch.cuda.is_available()


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
    threads: threads_for("train")
    resources:
        mem_mb=16000,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        experiment=science,
        data=subpath(input.data, parent=True),
        work=f"{RUN}/checkpoints",
        device=GRID.config.device,
    shell:
        "coldbench train --experiment {params.experiment:q} --data {params.data:q} --out {output.model:q}"
        " --work {params.work:q} --device {params.device} --threads {threads} --log {log:q}"
