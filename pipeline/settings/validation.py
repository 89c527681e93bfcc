"""Settings of what makes a training row well formed."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.base import Settings


class ValidationSettings(Settings):
    """Limits of a well-formed row."""

    min_question_chars: int = Field(10, ge=1)
    max_chars: int = Field(400_000, ge=100)
    """Question plus answer; longer rows are run-aways and are never tokenised."""
    min_thinking_chars: int = Field(20, ge=0)
    max_foreign_share: float = Field(0.3, ge=0, le=1)
    """Share of letters outside Latin and Greek above which a text is in another language; at 1
    nobody looks for languages, nor for the words of those in Latin letters."""
    max_link_share: float = Field(0.5, ge=0, le=1)
    """Share of a question's or an answer's characters above which links make it spam."""
    min_distinct_ngrams: float = Field(0.3, ge=0, le=1)
    """Distinct share of the word 4-grams at a text's end; a loop has fewer. At 0 nobody looks for
    loops, nor for a reasoning whose end stands near its end again and again."""
    check_syntax: bool = True
    """Refuse Python programs that do not parse, where the source promises programs."""
    check_gold: bool = True
    """Hold maths answers against the source's own, where it has one; wrong ones are refused."""
    run_tests: bool = False
    """Run programs against the source's tests, where it has some, in the sandbox. The authors of
    OpenCodeReasoning report that filtering by execution hurt."""
    test_timeout_s: float = Field(6.0, gt=0)
    """Processor seconds of one program on one test."""

    @property
    def looks_for_languages(self) -> bool:
        """Whether the rule against other languages is on."""
        return self.max_foreign_share < 1

    @property
    def looks_for_loops(self) -> bool:
        """Whether the rule against repetition is on."""
        return self.min_distinct_ngrams > 0
