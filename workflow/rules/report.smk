# Views of the scores: a page per table and per run, the paper's figures, the front page.

ROWS = f"{REPORTS}/rows.json"


# Which experiment makes each row of the paper, and why it is skipped.
rule plan_rows:
    output:
        ROWS,
    log:
        f"{REPORTS}/logs/rows.log",
    localrule: True
    params:
        rows=planning.planned_rows(GRID),
    run:
        write_json(Path(output[0]), params.rows)


# The paper's figures, the plots and a page per run: one job, because all are cheap and share their images.
rule render_figures:
    input:
        plan="workflow/paper/figures.yaml",
        scores=scores,
        figures=each(REPORT_RUNS, "figures.json"),
    output:
        page=f"{REPORTS}/figures.html",
        runs=directory(f"{REPORTS}/runs"),
        images=directory(f"{REPORTS}/images"),
    log:
        f"{REPORTS}/logs/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "coldbench render-figures {input.scores:q} {input.figures:q} --figures {input.plan:q} --out {output.page:q} --log {log:q}"


rule render_table:
    input:
        paper=PAPER,
        scores=scores,
        rows=ROWS,
    output:
        page=f"{REPORTS}/table{{number}}.html",
        exports=multiext(f"{REPORTS}/table{{number}}", ".csv", ".tex", ".json"),
    log:
        f"{REPORTS}/logs/table{{number}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "coldbench render-table {wildcards.number} {input.scores:q} --paper {input.paper:q} --planned-rows {input.rows:q}"
        " --out {output.page:q} --log {log:q}"


rule render_discrepancies:
    input:
        questions="workflow/paper/discrepancies.yaml",
        grid="workflow/config/paper.yaml",
        interpretations=INTERPRETATIONS,
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
    shell:
        "coldbench render-discrepancies {input.questions:q} {input.scores:q} --grid {input.grid:q} --paper {input.paper:q}"
        " --interpretations {input.interpretations:q} {params.calibration} --out {output:q} --log {log:q}"


if CALIBRATION:

    rule render_calibration:
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
        shell:
            "coldbench render-calibration {input.table:q} --paper {input.paper:q} --out {output:q} --log {log:q}"


# The front page comes last, because it updates the links of the other pages and states the size of the whole folder.
rule render_index:
    input:
        f"{REPORTS}/figures.html",
        f"{REPORTS}/discrepancies.html",
        CALIBRATED,
        expand(f"{REPORTS}/table{{number}}.html", number=TABLES),
        claims="workflow/paper/claims.yaml",
        paper=PAPER,
        scores=scores,
        rows=ROWS,
    output:
        f"{REPORTS}/index.html",
    log:
        f"{REPORTS}/logs/index.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "coldbench render-index {input.scores:q} --paper {input.paper:q} --claims {input.claims:q} --planned-rows {input.rows:q}"
        " --out {output:q} --log {log:q}"
