"""Errors a user can act on: one line, the culprit first, the nearest valid choice last."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ColdbenchError(Exception):
    """Bad input or a failed run, told in one line; the command line prints it without a traceback."""


class NotThere(ColdbenchError):
    """A file that could still be fetched or made is absent; a damaged one is a plain ColdbenchError."""


def unknown(kind: str, word: object, choices: Iterable[str]) -> ColdbenchError:
    """The error for a name that is not among `choices`: names it, the nearest choice, and all of them."""
    names = sorted(map(str, choices))
    close = get_close_matches(str(word), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return ColdbenchError(f"unknown {kind} '{word}': {hint}(valid: {', '.join(names)})")
