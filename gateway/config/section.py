"""A mapping of providers.yaml, as pydantic judges it: what all of them have in common."""

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A mapping of the file. Unknown keys are refused, an empty value is one that was not written."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: object) -> object:
        if not isinstance(data, dict):
            return {} if data is None else data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        entries = cast("dict[str, object]", data)
        return {key: value for key, value in entries.items() if value is not None or key not in known}

    def written(self) -> dict[str, Any]:
        """The keys that the file has, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}
