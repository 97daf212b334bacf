# Views of the scores: a page per table and per run, the paper's figures, the front page.

FIGURES = "workflow/paper/figures.yaml"
PAGES = [  # of the report, beside those of pictures
    "index.html",
    "discrepancies.html",
    *(f"table{number}.html" for number in TABLES),
    *(["calibration.html"] if CALIBRATED else []),
]


# The paper's figures, the plots and a page per run: one job, because all are cheap and share their images.
rule gallery:
    input:
        plan=FIGURES,
        scores=scores,
        figures=each(SHOWN, "figures.json"),
    output:
        page=f"{REPORTS}/figures.html",
        runs=directory(f"{REPORTS}/runs"),
        images=directory(f"{REPORTS}/images"),
    log:
        f"{REPORTS}/logs/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        links=links,
    shell:
        "coldbench gallery {input.scores:q} {input.figures:q} --plan {input.plan:q} {params.links}"
        " --out {output.page:q} --log {log:q}"


rule table:
    input:
        paper=PAPER,
        scores=scores,
    output:
        page=f"{REPORTS}/table{{number}}.html",
        twins=multiext(f"{REPORTS}/table{{number}}", ".csv", ".tex", ".json"),
    log:
        f"{REPORTS}/logs/table{{number}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        plan=planned,
        links=links,
    shell:
        "coldbench table {wildcards.number} {input.scores:q} --paper {input.paper:q} --plan {params.plan:q} {params.links}"
        " --out {output.page:q} --log {log:q}"


rule discrepancies:
    input:
        questions="workflow/paper/discrepancies.yaml",
        grid="workflow/config/paper.yaml",
        readings=READINGS,
        paper=PAPER,
        scores=scores,
        calibration=CALIBRATION,
    output:
        f"{REPORTS}/discrepancies.html",
    log:
        f"{REPORTS}/logs/discrepancies.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        calibration=lambda w, input: f"--calibration {shlex.quote(str(input.calibration))}" if input.calibration else "",
        links=links,
    shell:
        "coldbench discrepancies {input.questions:q} {input.scores:q} --grid {input.grid:q} --readings {input.readings:q}"
        " --paper {input.paper:q} {params.calibration} {params.links} --out {output:q} --log {log:q}"


if CALIBRATION:

    rule calibration:
        input:
            table=CALIBRATION,
            paper=PAPER,
        output:
            CALIBRATED,
        log:
            f"{REPORTS}/logs/calibration.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            links=links,
        shell:
            "coldbench calibration {input.table:q} --paper {input.paper:q} {params.links} --out {output:q} --log {log:q}"


# The front page comes last: it links the others and states the size of the whole folder.
rule report:
    input:
        f"{REPORTS}/figures.html",
        f"{REPORTS}/discrepancies.html",
        CALIBRATED,
        expand(f"{REPORTS}/table{{number}}.html", number=TABLES),
        claims="workflow/paper/claims.yaml",
        paper=PAPER,
        scores=scores,
    output:
        f"{REPORTS}/index.html",
    log:
        f"{REPORTS}/logs/index.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        plan=planned,
        links=links,
    shell:
        "coldbench report {input.scores:q} --paper {input.paper:q} --claims {input.claims:q} --plan {params.plan:q}"
        " {params.links} --out {output:q} --log {log:q}"
