"""What to raise when several requests failed at once."""

from __future__ import annotations

from pipeline.errors import TeacherError


def first_failure(failures: ExceptionGroup[Exception]) -> Exception:
    """The first failure of a task group, or the whole group if something else failed too.

    Raising a single error inside ``except*`` wraps it in a group again on some releases of
    Python 3.11 (3.11.2, not 3.11.7), so a group is caught whole and parted here.
    """
    own, others = failures.split(TeacherError)
    if own is None or others is not None:
        return failures
    first: Exception = own.exceptions[0]
    return first_failure(first) if isinstance(first, ExceptionGroup) else first
