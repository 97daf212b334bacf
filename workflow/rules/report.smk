# Views of the scores: a page per table and per run, the paper's figures, the front page.


rule plan_rows:
    input:
        to_make_first(planned_rows),
    output:
        ROWS,
    log:
        f"{REPORTS}/logs/rows.log",
    localrule: True
    params:
        rows=planning.planned_rows(GRID),
    run:
        write_json(Path(output[0]), params.rows)


# The paper's figures, the plots and a page per run: one job, because all are cheap and share their images. The folders
# runs and images are no outputs, because Snakemake would remove in them the pages of other runs.
rule render_figures:
    input:
        to_make_first(figures_page),
    output:
        page=update(f"{REPORTS}/figures.html"),
    log:
        f"{REPORTS}/logs/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scores=score_files,
        figures=each(REPORT_RUNS, "figures.json"),
        plan=FIGURES,
        paper=PAPER,
    shell:
        "coldbench render-figures {params.scores:q} {params.figures:q} --figures {params.plan:q} --paper {params.paper:q} --out {output.page:q} --log {log:q}"


rule render_table:
    input:
        to_make_first(table_page),
    output:
        page=update(f"{REPORTS}/table{{number}}.html"),
        exports=update(multiext(f"{REPORTS}/table{{number}}", ".csv", ".tex", ".json")),
    log:
        f"{REPORTS}/logs/table{{number}}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        paper=PAPER,
        scores=score_files,
        rows=ROWS,
    shell:
        "coldbench render-table {wildcards.number} {params.scores:q} --paper {params.paper:q} --planned-rows {params.rows:q}"
        " --out {output.page:q} --log {log:q}"


rule render_methods:
    input:
        to_make_first(methods_page),
    output:
        page=update(f"{REPORTS}/methods.html"),
        exports=update(multiext(f"{REPORTS}/methods", ".csv", ".tex", ".json")),
    log:
        f"{REPORTS}/logs/methods.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scores=score_files,
        baseline=GRID.config.baseline,
    shell:
        "coldbench render-methods {params.scores:q} --baseline {params.baseline:q} --out {output.page:q} --log {log:q}"


rule render_discrepancies:
    input:
        to_make_first(discrepancies_page),
    output:
        update(f"{REPORTS}/discrepancies.html"),
    log:
        f"{REPORTS}/logs/discrepancies.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        questions=QUESTIONS,
        grid=EXPERIMENTS,
        interpretations=INTERPRETATIONS,
        paper=PAPER,
        scores=score_files,
        calibration=CALIBRATION_WORDS,
    shell:
        "coldbench render-discrepancies {params.questions:q} {params.scores:q} --grid {params.grid:q} --paper {params.paper:q}"
        " --interpretations {params.interpretations:q} {params.calibration} --out {output:q} --log {log:q}"


if CALIBRATION:

    rule render_calibration:
        input:
            to_make_first(calibration_page),
        output:
            update(f"{REPORTS}/calibration.html"),
        log:
            f"{REPORTS}/logs/calibration.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            table=str(CALIBRATION.file),
            paper=PAPER,
        shell:
            "coldbench render-calibration {params.table:q} --paper {params.paper:q} --out {output:q} --log {log:q}"


rule render_index:
    input:
        to_make_first(index_page),
    output:
        update(f"{REPORTS}/index.html"),
    log:
        f"{REPORTS}/logs/index.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        claims=CLAIMS,
        paper=PAPER,
        scores=score_files,
        rows=ROWS,
        calibration=CALIBRATION_WORDS,
    shell:
        "coldbench render-index {params.scores:q} --paper {params.paper:q} --claims {params.claims:q} --planned-rows {params.rows:q}"
        " {params.calibration} --out {output:q} --log {log:q}"
