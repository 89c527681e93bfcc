"""Every error a user can meet, with the exit code the command line ends with.

PipelineError              exit 2  the user's mistake or environment; always carries a hint
├── ConfigError                    a recipe or an option is wrong
├── SourceError                    an input file or hub dataset is missing or malformed
├── TeacherError                   the teacher cannot be used
│   └── TeacherUnreachable         no answer within the limits; finished work is kept
├── StoreError                     a shard, manifest or checkpoint cannot be read or written
│   └── ManifestMismatch           a file differs from what its manifest recorded
├── SandboxError                   code cannot be executed safely here
├── Interrupted           exit 130 a process of ours was stopped after it had saved its work
├── WorkPending           exit 130 requests were handed out; the same command goes on with answers
└── GateRefused            exit 3  a rule stopped the run: nothing was published
├── TooManyRejected            zero accepted rows, or more rejected than the limit
├── BudgetExceeded             the run's budget is spent; answers so far are kept
├── Contaminated               benchmark items where there must be none
├── LicenceRefused             a licence the phase does not allow
└── StateLeak                  packed documents influence each other
"""

from __future__ import annotations

from typing import Any

from pipeline.redaction import mask_message

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_GATE = 3
EXIT_INTERRUPTED = 130


class PipelineError(Exception):
    """A failure the user can act on.

    Args:
        message: What failed, on which file, row or field, and what was expected.
        hint: What to do about it, as one imperative sentence.

    Both are masked (:mod:`pipeline.redaction`): they may quote servers and addresses, and end in
    logs, event logs and run pages.
    """

    exit_code = EXIT_USER
    place = ""
    """The shard of a stage that could not be done, once it is known; the others are kept."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(mask_message(message))
        self.hint = mask_message(hint)

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors of worker processes come back pickled, and hints are keyword-only.
        return _rebuild, (type(self), self.args, self.hint)


def _rebuild(kind: type[PipelineError], args: tuple[Any, ...], hint: str) -> PipelineError:
    return kind(*args, hint=hint)


class ConfigError(PipelineError):
    """A recipe key, value or command-line option is wrong."""


class SourceError(PipelineError):
    """An input is missing, unreadable or has the wrong columns."""


class TeacherError(PipelineError):
    """A teacher engine cannot be used as configured."""


class TeacherUnreachable(TeacherError):
    """The teacher gave no answer within the configured retries."""


class StoreError(PipelineError):
    """An output of ours cannot be read or written."""


class ManifestMismatch(StoreError):
    """A file on disk differs from what its manifest recorded."""


class SandboxError(PipelineError):
    """Untrusted code cannot be executed safely on this machine."""


class Interrupted(PipelineError):
    """A process of ours was told to stop and saved its work; the same command goes on with it."""

    exit_code = EXIT_INTERRUPTED


class WorkPending(PipelineError):
    """Work was handed to somebody else, e.g. an offline fleet; the same command continues."""

    exit_code = EXIT_INTERRUPTED


class GateRefused(PipelineError):
    """A rule of the recipe stopped the run before anything was published."""

    exit_code = EXIT_GATE


class TooManyRejected(GateRefused):
    """A stage accepted nothing, or rejected more than the recipe allows."""


class BudgetExceeded(GateRefused):
    """The next request could pass the budget that the recipe sets."""


class Contaminated(GateRefused):
    """Benchmark items were found where the recipe allows none."""


class LicenceRefused(GateRefused):
    """A source's licence is not among those the phase allows."""


class StateLeak(GateRefused):
    """Documents packed into one row influence each other."""
