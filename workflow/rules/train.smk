# One model a job. Checkpoints are no outputs: they survive a killed job, and the next one goes on from them.


# update() keeps Snakemake from removing an output before its job has decided whether it still fits.
rule train:
    input:
        to_make_first(trained_model),
    output:
        model=update(f"{RUN}/model.safetensors"),
        log=update(f"{RUN}/model.jsonl"),
    log:
        f"{RUN}/logs/train.log",
    benchmark:
        f"{RUN}/logs/train.tsv"
    wildcard_constraints:
        run=one_of(NAMES - IMPORTED - BORROWED),
    conda:
        "../../environment.yml"
    threads: threads_for("train")
    resources:
        device=DEVICE,
        gpu=GPUS,
        options=TRAINING_OPTIONS,
        run_file=run_file,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=1440,  # no more in a second attempt: it goes on where the first one stopped
    params:
        data=prepared,
        partner=partner_option,
        checkpoints=lambda w: f"{RESULTS}/{w.budget}/{w.run}/checkpoints/{of(w).experiment.fingerprint}",
    shell:
        "on {resources.gpu} {threads} coldbench train {resources.run_file:q} --data {params.data:q} --out {output.model:q}"
        " --checkpoint-dir {params.checkpoints:q} {params.partner} {resources.options} --device {resources.device} --threads {threads} --log {log:q}"
        " --time-limit {resources.runtime}"


# A checkpoint of the released code in place of a training. Nothing but its experiment makes it be imported again: the
# file itself may be gone.
rule import_model:
    input:
        to_make_first(lambda w: PRODUCTS.model(of(w))),
    output:
        model=update(f"{RUN}/model.safetensors"),
        log=update(f"{RUN}/model.jsonl"),
    log:
        f"{RUN}/logs/import.log",
    wildcard_constraints:
        run=one_of(IMPORTED - BORROWED),
    conda:
        "../../environment.yml"
    resources:
        source=lambda w: GRID.config.imports.get(w.run, ""),
        run_file=run_file,
    shell:
        "coldbench import {resources.source:q} --run {resources.run_file:q} --out {output.model:q} --log {log:q}"
        " && touch {output.log:q}"
