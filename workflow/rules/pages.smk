# The pages of the report as products. Every page states the hash of the files that it was made from, so its product lists
# them in the order of its command.
ROWS = f"{REPORTS}/rows.json"
FIGURES = "workflow/paper/figures.yaml"
QUESTIONS = "workflow/paper/discrepancies.yaml"
CLAIMS = "workflow/paper/claims.yaml"
EXPERIMENTS = "workflow/config/paper.yaml"
CALIBRATION_WORDS = f"--calibration {shlex.quote(str(SHOWN_CALIBRATION.file))}" if SHOWN_CALIBRATION else ""


def page_of(names, made_from, sources, *settings):
    """The page, the first of `names` in the report, whose command reads the files `made_from` and gets `settings`."""
    return page([Path(REPORTS, name) for name in names], map(Path, made_from), sources, *settings)


def planned_rows(wildcards):
    """Which experiment makes each row of the paper, and why it is skipped."""
    rows = planning.planned_rows(GRID)
    return product([Path(ROWS)], lambda: "" if read_json(Path(ROWS)) == rows else "the configuration has changed")


def figures_page(wildcards):
    made_from = [*score_files(wildcards), *each(REPORT_RUNS, "figures.json"), FIGURES, PAPER]
    sources = scores_of(REPORT_RUNS) + figures_of(REPORT_RUNS)
    return page_of(["figures.html"], made_from, sources)


def table_page(wildcards):
    names = [f"table{wildcards.number}.{end}" for end in ("html", "csv", "tex", "json")]
    sources = [*scores_of(score_runs(wildcards)), planned_rows(wildcards)]
    return page_of(names, [*score_files(wildcards), PAPER, ROWS], sources)


def methods_page(wildcards):
    """Its command also reads the per-image values beside the scores, as far as they exist."""
    images = [path for path in each(REPORT_RUNS, "images.parquet") if Path(path).exists()]
    names = [f"methods.{end}" for end in ("html", "csv", "tex", "json")]
    made_from = [*each(REPORT_RUNS, "scores.parquet"), *images]
    return page_of(names, made_from, scores_of(REPORT_RUNS), GRID.config.baseline)


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
    pages += [methods_page(wildcards), figures_page(wildcards), discrepancies_page(wildcards)]
    pages += [calibration_page(wildcards)] if SHOWN_CALIBRATION else []
    made_from = [*score_files(wildcards), PAPER, CLAIMS, ROWS]
    made_from += [SHOWN_CALIBRATION.file] if SHOWN_CALIBRATION else []
    return page_of(["index.html"], made_from, [*scores_of(REPORT_RUNS), planned_rows(wildcards), *pages])
