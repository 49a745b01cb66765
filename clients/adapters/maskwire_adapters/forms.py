"""Requests of labelling tools: unknown fields are accepted, and empty values stand for absent ones."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class ToolForm(BaseModel):
    """A JSON object of a tool's request.

    Tools differ, between versions too, in how they say that there is nothing: an optional field may be absent, null,
    an empty list or an empty object. Fields that Maskwire has no use for are ignored: tools send many and add more.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, content: Any) -> Any:
        if content in (None, []):
            return {}
        if not isinstance(content, dict):
            return content
        required = {field.alias or name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in content.items() if key in required or value not in (None, [], {})}
