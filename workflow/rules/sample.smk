# Every set and method of one model. Shards are no outputs: finished ones survive a killed job. With sampling.jobs > 1
# that many jobs make the shards side by side; the last one finds them all, and makes again what is missing.


rule sample_part:
    input:
        model=model,
        data=prepared,
        partner=partner,
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
        partner=partner_option,
        run_file=run_file,
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        sampling=sampling_hash,
        data=subpath(input.data, parent=True),
        shards=f"{RUN}/shards",
    shell:
        "on 1 {threads} coldbench sample {resources.run_file:q} {input.model:q}"
        " --data {params.data:q} --shard-dir {params.shards:q}"
        " {resources.partner} --device {resources.device} --threads {threads} --log {log:q}"
        " --part {wildcards.part}/{wildcards.jobs}"


rule sample:
    input:
        parts,
        model=model,
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
        run_file=run_file,
        gpu=GPUS,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        sampling=sampling_hash,
        data=subpath(input.data, parent=True),
        shards=f"{RUN}/shards",
    shell:
        "on 1 {threads} coldbench sample {resources.run_file:q} {input.model:q}"
        " --data {params.data:q} --shard-dir {params.shards:q}"
        " {resources.partner} --device {resources.device} --threads {threads} --log {log:q}"
        " --out {output:q}"
