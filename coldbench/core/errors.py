"""Errors that a user can act on: one line, the culprit first, the nearest valid choice last."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ColdbenchError(Exception):
    """Bad input or a failed run, in one line; the command line prints it without a traceback."""


class MissingFile(ColdbenchError):
    """A file is absent that could be downloaded or put in its place. A damaged file raises ColdbenchError itself."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> ColdbenchError:
    """The error for a `name` that is not among `choices`; its message ends with the nearest choice and all of them."""
    names = sorted(map(str, choices))
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return ColdbenchError(f"unknown {kind} '{name}': {hint}(valid: {', '.join(names)})")
