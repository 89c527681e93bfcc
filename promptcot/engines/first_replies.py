"""Tell one bad request from a bad set-up: nothing but refusals at the start stops the run."""

from __future__ import annotations

from pipeline.errors import TeacherError

_MAX_FIRST_REFUSALS = 8


class FirstReplies:
    """Counts refusals until something is answered; from then on a refusal concerns its request."""

    def __init__(self) -> None:
        self._has_answered = False
        self._num_refusals = 0

    def note_answer(self) -> None:
        """The set-up works."""
        self._has_answered = True

    def note_refusal(self, message: str, hint: str) -> None:
        """A request was refused, or its reply was none.

        Raises:
            TeacherError: So were all before it: the teacher cannot be used as configured.
        """
        self._num_refusals += 1
        if not self._has_answered and self._num_refusals >= _MAX_FIRST_REFUSALS:
            raise TeacherError(
                f"{message} (so ended the first {self._num_refusals} tries, and none was answered)",
                hint=hint,
            )
