# Views of the scores: a page per table and per run, the paper's figures, the front page. Every page states the hash of
# the files that it was made from, so its product lists them in the order of its command.
ROWS = f"{REPORTS}/rows.json"
FIGURES = "workflow/paper/figures.yaml"
QUESTIONS = "workflow/paper/discrepancies.yaml"
CLAIMS = "workflow/paper/claims.yaml"
EXPERIMENTS = "workflow/config/paper.yaml"


def page_of(names, made_from, sources):
    """The page, the first of `names` in the report, whose command reads the files `made_from`."""
    return page([Path(REPORTS, name) for name in names], map(Path, made_from), sources)


def planned_rows(wildcards):
    """Which experiment makes each row of the paper, and why it is skipped."""
    rows = planning.planned_rows(GRID)
    return product([Path(ROWS)], lambda: "" if read_json(Path(ROWS)) == rows else "the configuration has changed")


def figures_page(wildcards):
    made_from = [*score_files(wildcards), *each(REPORT_RUNS, "figures.json"), FIGURES]
    sources = scores_of(REPORT_RUNS) + figures_of(REPORT_RUNS)
    return page_of(["figures.html"], made_from, sources)


def table_page(wildcards):
    names = [f"table{wildcards.number}.{end}" for end in ("html", "csv", "tex", "json")]
    sources = [*scores_of(score_runs(wildcards)), planned_rows(wildcards)]
    return page_of(names, [*score_files(wildcards), PAPER, ROWS], sources)


def discrepancies_page(wildcards):
    made_from = [QUESTIONS, *score_files(wildcards), EXPERIMENTS, PAPER, INTERPRETATIONS]
    calibration = [SHOWN_CALIBRATION] if SHOWN_CALIBRATION else []
    made_from += [each.file for each in calibration]
    return page_of(["discrepancies.html"], made_from, scores_of(REPORT_RUNS) + calibration)


def calibration_page(wildcards):
    return page_of(["calibration.html"], [CALIBRATION.file, PAPER], [CALIBRATION])


def index_page(wildcards):
    """The front page comes last: it updates the links of the other pages and states the size of the whole folder."""
    pages = [table_page(SimpleNamespace(number=number)) for number in TABLES]
    pages += [figures_page(wildcards), discrepancies_page(wildcards)]
    pages += [calibration_page(wildcards)] if SHOWN_CALIBRATION else []
    made_from = [*score_files(wildcards), PAPER, CLAIMS, ROWS]
    return page_of(["index.html"], made_from, [*scores_of(REPORT_RUNS), planned_rows(wildcards), *pages])


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
        page=f"{REPORTS}/figures.html",
    log:
        f"{REPORTS}/logs/figures.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        scores=score_files,
        figures=each(REPORT_RUNS, "figures.json"),
        plan=FIGURES,
    shell:
        "coldbench render-figures {params.scores:q} {params.figures:q} --figures {params.plan:q} --out {output.page:q} --log {log:q}"


rule render_table:
    input:
        to_make_first(table_page),
    output:
        page=f"{REPORTS}/table{{number}}.html",
        exports=multiext(f"{REPORTS}/table{{number}}", ".csv", ".tex", ".json"),
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


rule render_discrepancies:
    input:
        to_make_first(discrepancies_page),
    output:
        f"{REPORTS}/discrepancies.html",
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
        calibration=f"--calibration {shlex.quote(str(SHOWN_CALIBRATION.file))}" if SHOWN_CALIBRATION else "",
    shell:
        "coldbench render-discrepancies {params.questions:q} {params.scores:q} --grid {params.grid:q} --paper {params.paper:q}"
        " --interpretations {params.interpretations:q} {params.calibration} --out {output:q} --log {log:q}"


if CALIBRATION:

    rule render_calibration:
        input:
            to_make_first(calibration_page),
        output:
            f"{REPORTS}/calibration.html",
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
        f"{REPORTS}/index.html",
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
    shell:
        "coldbench render-index {params.scores:q} --paper {params.paper:q} --claims {params.claims:q} --planned-rows {params.rows:q}"
        " --out {output:q} --log {log:q}"
