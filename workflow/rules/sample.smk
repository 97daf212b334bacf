# Every set and method of one model. Shards are no outputs: finished ones survive a killed job. With sampling.jobs > 1
# that many jobs make the shards side by side; the last one finds them all, and makes again what is missing.


rule sample_part:
    input:
        to_make_first(lambda w: PRODUCTS.samples(of(w))),
    output:
        touch(f"{RUN}/parts/{{part}}-of-{{jobs}}.done"),
    log:
        f"{RUN}/logs/sample-{{part}}-of-{{jobs}}.log",
    wildcard_constraints:
        jobs=r"\d+",
    conda:
        "../../environment.yml"
    threads: threads_for("sample")
    resources:
        device=DEVICE,
        run_file=run_file,
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        model=path_of(PRODUCTS.model),
        data=prepared,
        partner=partner_option,
        shards=f"{RUN}/shards",
    shell:
        "on 1 {threads} coldbench sample {resources.run_file:q} {params.model:q}"
        " --data {params.data:q} --shard-dir {params.shards:q}"
        " {params.partner} --device {resources.device} --threads {threads} --log {log:q}"
        " --part {wildcards.part}/{wildcards.jobs}"


rule sample:
    input:
        to_make_first(lambda w: PRODUCTS.samples(of(w))),
        parts,
    output:
        update(f"{RUN}/samples.json"),
    log:
        f"{RUN}/logs/sample.log",
    benchmark:
        f"{RUN}/logs/sample.tsv"
    conda:
        "../../environment.yml"
    threads: threads_for("sample")
    resources:
        device=DEVICE,
        run_file=run_file,
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        model=path_of(PRODUCTS.model),
        data=prepared,
        partner=partner_option,
        shards=f"{RUN}/shards",
    shell:
        "on 1 {threads} coldbench sample {resources.run_file:q} {params.model:q}"
        " --data {params.data:q} --shard-dir {params.shards:q}"
        " {params.partner} --device {resources.device} --threads {threads} --log {log:q}"
        " --out {output:q}"
