"""Static pages that open anywhere: one template environment and one style sheet for all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

# NUL and other control characters have no place in HTML; tab and newline do.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn figure and the sentence that stands for it where it cannot be seen."""

    svg: str
    label: str
    caption: str


def page_environment(package: str) -> Environment:
    """Templates of a package's ``templates`` folder; ``report.css`` comes from this one's.

    Everything is escaped unless a template says otherwise, and an unknown name is an error.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("pipeline")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["num"] = "{:,}".format
    environment.filters["percent"] = "{:.1%}".format
    environment.filters["clean"] = clean_text
    return environment


def clean_text(text: str) -> str:
    """Text with control characters, which HTML forbids, shown as the replacement character."""
    return _CONTROL.sub("�", text)
