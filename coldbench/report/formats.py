"""How the report writes metrics, numbers, times and sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from coldbench.evaluation.scores import Score

LABELS = {
    "frechet_gabor": "FD-Gabor",  # its features come from a small fixed filter bank, so the report never calls it FID
    "fid": "FID",
    "kid": "KID",
    "ssim": "SSIM",
    "rmse": "RMSE",
    "psnr": "PSNR",
    "ssim_signed": "SSIM in [-1, 1]",
    "rmse_signed": "RMSE in [-1, 1]",
}


def quantity(metric: str) -> str:
    """What a metric measures under any protocol: fid_paper-float is fid."""
    prefix = metric.partition("_")[0]
    if metric == "rmse_per_image":
        return "rmse"
    return prefix if prefix in ("fid", "kid") else metric


def metric_label(metric: str) -> str:
    """A metric without its protocol: "FID"."""
    return LABELS.get(quantity(metric), metric)


def metric_name(score: Score) -> str:
    """A metric with everything that its value depends on: "FID (paper-float, test, n = 10,000)"."""
    protocol = score.metric.removeprefix(quantity(score.metric)).removeprefix("_")
    details = filter(None, (protocol, score.reference, f"n = {score.n:,}" if score.reference else ""))
    text = ", ".join(details)
    return metric_label(score.metric) + (f" ({text})" if text else "")


def shown(value: float) -> str:
    """A value as a table prints it: four decimals, two if it is large, else three digits and an exponent."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    size = abs(value)
    extreme = size and not 1e-4 <= size < 1e4
    text = f"{value:.2e}" if extreme else f"{value:.2f}" if size >= 10 else f"{value:.4f}"
    return text.replace("-", "−")


def shown_or_dash(value: float) -> str:
    """A value as a table prints it, or a dash if it is NaN or infinite."""
    return shown(value) if math.isfinite(value) else "–"


def signed(difference: float) -> str:
    """A difference with its sign, and as many decimals as `shown` gives."""
    size = abs(difference)
    text = f"{difference:+.2e}" if size >= 1e4 else f"{difference:+.2f}" if size >= 10 else f"{difference:+.4f}"
    return text.replace("-", "−")


def signed_or_dash(difference: float) -> str:
    """A difference with its sign, or a dash if it is NaN or infinite."""
    return signed(difference) if math.isfinite(difference) else "–"


def interval(low: float, high: float) -> str:
    """An interval: "0.2861 – 0.2871", or "" if a bound is NaN because no interval was computed."""
    return "" if math.isnan(low) or math.isnan(high) else f"{shown(low)} – {shown(high)}"


def duration(seconds: float) -> str:
    """A time in one unit: "1.4 s", "35 s", "16 min", "3.2 h"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:,.1f} h"


def file_size(size: int) -> str:
    """A size in bytes in one unit: "840 kB", "12.3 MB"."""
    return f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


def seconds_each(seconds: float) -> str:
    """The time for an image in one unit: "2.5 ms", "1.4 s"; a dash if it is unknown."""
    if not math.isfinite(seconds):
        return "–"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def p_value(p: float) -> str:
    """A p-value as text: "p = 0.012", "p < 0.001"; "no test" if it is NaN."""
    if math.isnan(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings as text: "blur: T 40, kernel 11"."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items() if key != "name")
    return f"{values['name']}: {settings}" if "name" in values else settings


def first_up(text: str) -> str:
    """`text` with its first letter in upper case and the others as they are."""
    return text[:1].upper() + text[1:]


def code(text: str) -> Markup:
    """`text` as HTML, escaped; what stands between backticks becomes code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if k % 2 and k < len(parts) - 1 else escape("`" * (k % 2) + part)
        for k, part in enumerate(parts)
    )


def css_text(text: str) -> str:
    """A text as it may stand between quotes in a style sheet; letters, digits, spaces and : . , + - stay."""
    return re.sub(r"[^\w :.,+-]", lambda match: f"\\{ord(match[0]):x} ", text)
