"""The one exception type for mistakes a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of the user's: the command line prints the message without a trace and exits with code 2.

    The message says what came, what was expected and what to do.
    """


def near_names(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'seed'? (known: count, seed)`` for an unknown `name`."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{guess}(known: {', '.join(known) or 'none'})"


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """Return the error for an optional package that is not installed."""
    return UserError(f"{purpose} needs the package '{package}', which is not installed; run: pip install 'facefoundry[{extra}]'")
