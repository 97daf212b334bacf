# The submitting machine fetches the sources or finds them in the data folder. `prepare` decodes each data set once.


rule fetch:
    input:
        to_make_first(lambda w: PRODUCTS.fetched(w.dataset)),
    output:
        touch(f"{RESULTS}/data/{{dataset}}.fetched"),
    log:
        f"{RESULTS}/logs/fetch-{{dataset}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        folder=DATA,
        plugins=PLUGIN_OPTIONS,
    shell:
        "coldbench fetch {wildcards.dataset:q} {resources.folder:q} {resources.plugins} --log {log:q}"


rule prepare:
    input:
        to_make_first(lambda w: PRODUCTS.prepared(w.dataset, int(w.size))),
    output:
        train=update(f"{RESULTS}/data/{{dataset}}-{{size}}/train.npy"),
        test=update(f"{RESULTS}/data/{{dataset}}-{{size}}/test.npy"),
        info=update(f"{RESULTS}/data/{{dataset}}-{{size}}/info.json"),
    log:
        f"{RESULTS}/logs/prepare-{{dataset}}-{{size}}.log",
    conda:
        "../../environment.yml"
    threads: threads_for("prepare")
    resources:
        folder=DATA,
        plugins=PLUGIN_OPTIONS,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        out=subpath(output.info, parent=True),
    shell:
        "coldbench prepare {wildcards.dataset:q} --size {wildcards.size} --folder {resources.folder:q}"
        " --out {params.out:q} {resources.plugins} --log {log:q}"


# Inception's weights, for FID: fetched once, verified by their SHA-256; compute nodes need no network.
rule fetch_weights:
    output:
        touch(WEIGHTS or f"{RESULTS}/inception/fetched"),
    log:
        f"{RESULTS}/logs/fetch-weights.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        fid=FID,
        folder=subpath(output[0], parent=True),
    shell:
        "coldbench fetch-weights {params.folder:q} {params.fid} --log {log:q}"
