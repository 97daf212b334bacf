"""The parts of docs/ about the published models: values over trainings, differences, claims, learning curves."""

from collections.abc import Iterable

import result_texts

from coldbench.evaluation.comparison import Difference
from coldbench.evaluation.metrics.intervals import Estimate
from coldbench.evaluation.scores import Score, Scores, read_scores
from coldbench.evaluation.trainings import over_trainings
from coldbench.report import claims
from coldbench.report.cells import in_groups
from coldbench.report.curves import newest, printed_cell
from coldbench.report.entries import load_values
from coldbench.report.formats import LABELS, metric_label, shown, signed
from coldbench.report.layout import TABLES, method_title
from coldbench.report.methods import Task, tasks

METHODS = ("direct", "naive", "tacos")
METRICS = ("ssim", "rmse")


def values() -> str:
    """SSIM and RMSE of every row with a model: mean and spread over the trainings, interval, and the paper's number."""
    lines = ["| row | metric | method | mean ± spread | 95 % interval | each training | paper |"]
    lines += ["|---|---|---|---|---|---|---|"]
    each = _of_rows(_scores())
    for score in _of_rows(result_texts.finished_scores()):
        here = score.experiment, score.budget, score.method, score.metric
        own = [other for other in each if (other.experiment, other.budget, other.method, other.metric) == here]
        texts = (
            _row(score),
            LABELS[score.metric],
            method_title(score.method),
            _with_spread(score),
            f"{shown(score.low)} to {shown(score.high)}",
            ", ".join(f"{shown(one.value)} ({shown(one.low)} to {shown(one.high)})" for one in own),
            _printed(score, score.method, score.metric),
        )
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def differences() -> str:
    """TACoS against direct and naive on the same images, decided over trainings and images."""
    lines = ["| row | metric | trainings, images | TACoS − direct | TACoS is | TACoS − naive | TACoS is |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for _, task in _tasks(score for score in _scores() if score.table):
        rows = {row.entry.score.method: row for row in task.rows if row.entry.score.set == "test"}
        tacos = rows["tacos"].entry.score
        for quantity in task.quantities:
            if quantity.metric not in METRICS:
                continue
            cells = [_row(tacos), LABELS[quantity.metric], f"{tacos.trainings}, {task.n:,}"]
            for method in ("direct", "naive"):
                cells += _reversed(rows[method].differences[quantity.metric])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def statements() -> str:
    """Every claim of the paper: what the published results say of it, and by which metric for which row."""
    lines = ["| claim | status | question | evidence |", "|---|---|---|---|"]
    known = claims.load(result_texts.ROOT / "workflow/paper/claims.yaml")
    for claim in claims.judged(known, result_texts.finished_scores(), result_texts.paper()):
        first = f"({claim.key}) {claim.statement.title} | **{claim.status}**"
        for criterion in claim.statement.criteria:
            evidence = "; ".join(map(_evidence, claim.on(criterion.question).deciding)) or "none"
            lines.append(f"| {first} | {criterion.question} | {evidence} |")
            first = " | "
    return "\n".join(lines) + "\n"


def curve() -> str:
    """The mean over the trainings after every number of steps; then what the paper prints."""
    lines = ["| row | metric | steps | direct | TACoS | TACoS − direct |", "|---|---|---|---|---|---|"]
    scores = [score for score in over_trainings(_scores(snapshots=True)) if score.set == "test" and score.steps]
    for training in in_groups(scores, "experiment", "budget"):
        last = newest(training, scores)
        if not last.table or not any(score.snapshot for score in training):
            continue
        for metric in METRICS:
            own = sorted((score for score in training if score.metric == metric), key=lambda score: score.steps)
            for model in in_groups(own, "steps"):
                scored = {score.method: score for score in model}
                pair = scored["tacos-direct"]
                difference = f"{signed(pair.value)} ({signed(pair.low)} to {signed(pair.high)})"
                numbers = f"{_with_spread(scored['direct'])} | {_with_spread(scored['tacos'])} | {difference}"
                lines.append(f"| {_row(last)} | {LABELS[metric]} | {pair.steps:,} | {numbers} |")
            printed = f"{_printed(last, 'direct', metric)} | {_printed(last, 'tacos', metric)} | "
            lines.append(f"| {_row(last)} | {LABELS[metric]} | the paper | {printed} |")
    return "\n".join(lines) + "\n"


def samplers() -> str:
    """Every method of every set of samples against TACoS, in the tasks of the rows with a model."""
    lines = ["| row | metric | better than TACoS | worse than TACoS | undecided |", "|---|---|---|---|---|"]
    for row, task in _tasks(_scores()):
        names = {LABELS[metric] for metric in METRICS}
        lines += [f"| {_row(row)} | {' | '.join(summary)} |" for summary in task.summary if summary[0] in names]
    return "\n".join(lines) + "\n"


def _scores(snapshots: bool = False) -> Scores:
    return tuple(score for score in read_scores(result_texts.PUBLISHED) if snapshots or not score.snapshot)


def _of_rows(scores: Iterable[Score]) -> list[Score]:
    """SSIM and RMSE of the methods in the rows of tables."""
    own = (s for s in scores if s.table and s.set == "test" and s.method in METHODS and s.metric in METRICS)
    return sorted(
        own, key=lambda s: (s.table, s.experiment, s.budget, METRICS.index(s.metric), METHODS.index(s.method), s.seed)
    )


def _row(score: Score) -> str:
    under_way = f", {score.budget} budget" if score.snapshot else ""
    return f"{TABLES[score.table].task}, {score.row}{under_way or result_texts.budget_suffix(score)}"


def _printed(run: Score, method: str, metric: str) -> str:
    """What the paper prints for a method in the row of a run, a dash if nothing."""
    cell = printed_cell(run, method, metric, result_texts.paper())
    return cell.printed if cell else "–"


def _with_spread(score: Score) -> str:
    return shown(score.value) + (f" ± {score.spread:.4f}" if score.trainings > 1 else "")


def _tasks(scores: Iterable[Score]) -> list[tuple[Score, Task]]:
    """The tasks of each budget at the last severity with a score of a table's row, which comes first, by table."""
    found, values = [], load_values(result_texts.PUBLISHED)
    for budget in in_groups(scores, "budget"):
        for task in tasks(tuple(budget), values):
            row = next((row.entry.score for row in task.rows if row.entry.score.table), None)
            if row and task.severity is None:
                found.append((row, task))
    return sorted(found, key=lambda each: each[0].table)


def _reversed(found: Difference) -> list[str]:
    """The difference seen from the baseline, and whether the baseline is better."""
    estimate = found.estimate
    turned = Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.n)
    outcome = {"better": "worse", "worse": "better"}.get(found.outcome, found.outcome)
    return [f"{signed(turned.value)} ({signed(turned.low)} to {signed(turned.high)})", f"**{outcome}**"]


def _evidence(evidence: claims.Evidence) -> str:
    name = evidence.run.experiment + result_texts.budget_suffix(evidence.run)
    where = f"{name} {metric_label(evidence.metric)} {evidence.value}"
    would_be = f" (it would be {evidence.would_be})" if evidence.would_be not in ("", evidence.status) else ""
    trainings = result_texts.trainings_count(evidence.trainings)
    return f"{where} ({evidence.interval}): {evidence.status}{would_be}, {trainings}"
