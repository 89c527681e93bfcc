"""Base of all settings, and the part of them that names a version."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Frozen settings; unknown keys are refused, and so are infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def execution_only(default: Any, **kwargs: Any) -> Any:
    """A field that changes how work is done, never its result; left out of version names."""
    return Field(default, json_schema_extra={"execution_only": True}, **kwargs)


def determining(settings: BaseModel) -> dict[str, Any]:
    """The JSON-ready values that determine a result: all fields but the execution-only ones."""
    values: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        marks = field.json_schema_extra
        if isinstance(marks, dict) and marks.get("execution_only"):
            continue
        values[name] = _plain(getattr(settings, name))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return determining(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
