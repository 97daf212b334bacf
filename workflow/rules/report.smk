# Views of the scores: figures per run, a page per table, the whole report.


rule figures:
    input:
        samples=f"{RUN}/samples.json",
        log=lambda w: str(Path(model(w)).with_suffix(".jsonl")),
    output:
        list=f"{RUN}/figures.json",
        pictures=directory(f"{RUN}/figures"),
    log:
        f"{RUN}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        about=lambda w: of(w).about.model_dump_json(),
    shell:
        "coldbench figures {input.samples:q} {input.log:q} --about {params.about:q} --out {output.list:q} --log {log:q}"


rule table:
    input:
        paper=PAPER,
        scores=scores,
    output:
        page=f"{REPORTS}/table{{number}}.html",
        csv=f"{REPORTS}/table{{number}}.csv",
    log:
        f"{REPORTS}/logs/table{{number}}.log",
    conda:
        "../../environment.yml"
    shell:
        "coldbench table {wildcards.number} {input.scores:q} --paper {input.paper:q} --out {output.page:q} --log {log:q}"


rule report:
    input:
        paper=PAPER,
        scores=scores,
        figures=each(MADE, "figures.json"),
    output:
        f"{REPORTS}/index.html",
    log:
        f"{REPORTS}/logs/index.log",
    conda:
        "../../environment.yml"
    shell:
        "coldbench report {input.scores:q} {input.figures:q} --paper {input.paper:q} --out {output:q} --log {log:q}"
