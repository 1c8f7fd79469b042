"""The form that an answer must have, as clients write it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from ..bodies import Body, Refused


class JsonSchema(Body):
    """The JSON schema that an answer must fit."""

    model_config = ConfigDict(extra="ignore")

    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Body):
    """The form that an answer must have."""

    type: Literal["text", "json_object", "json_schema", "json"] = "text"
    json_schema: JsonSchema | None = None
    # llama-server and others read it here, of either type.
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _complete(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None and self.schema_ is None:
            raise ValueError("json_schema goes with the type 'json_schema': it has the schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise ValueError("json_schema goes with the type 'json_schema' and with no other")
        return self

    @property
    def schema_text(self) -> str | None:
        """The schema, as text; ``{}`` for any object."""
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema is not None else self.schema_
        return json.dumps(schema or {}, ensure_ascii=False)


class StructuredOutputs(Body):
    """vLLM's name of the form; of its kinds a JSON schema is one that all engines know."""

    json_: dict[str, Any] | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: Annotated[Any, Refused("give a JSON schema: a peer may run another engine")] = None
    choice: Annotated[Any, Refused("give a JSON schema with an enum")] = None
    grammar: Annotated[Any, Refused("give a JSON schema: a peer may run another engine")] = None
    structural_tag: Annotated[Any, Refused("give a JSON schema: a peer may run another engine")] = (
        None
    )


class FormBody(Body):
    """The form of an answer, under all of its names."""

    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = Field(
        default=None, description="llama-server's name of a schema in `response_format`."
    )
    guided_json: dict[str, Any] | None = Field(
        default=None, description="vLLM's name of a schema in `response_format`."
    )
    structured_outputs: StructuredOutputs | None = Field(
        default=None, description="vLLM's name of `response_format`."
    )
    guided_regex: Annotated[Any, Refused("give a JSON schema in response_format")] = None
    guided_choice: Annotated[Any, Refused("give a JSON schema with an enum in response_format")] = (
        None
    )
    guided_grammar: Annotated[Any, Refused("give a JSON schema in response_format")] = None
    guided_whitespace_pattern: Annotated[
        Any, Refused("engines write the spaces of JSON as they do")
    ] = None

    @field_validator("json_schema", "guided_json", "response_format", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return None if value in ("", {}, []) else value

    @model_validator(mode="after")
    def _one_form(self) -> FormBody:
        if len(set(self._schemas)) > 1:
            raise ValueError(
                "response_format, json_schema, guided_json and structured_outputs are one thing: "
                "send one of them"
            )
        return self

    @property
    def _schemas(self) -> list[str]:
        form, outputs = self.response_format, self.structured_outputs
        bare = [self.json_schema, self.guided_json]
        if outputs is not None:
            bare += [outputs.json_, {} if outputs.json_object else None]
        found = [json.dumps(each, ensure_ascii=False) for each in bare if each is not None]
        usual = None if form is None else form.schema_text
        return found if usual is None else [usual, *found]

    @property
    def schema_text(self) -> str | None:
        """The JSON schema that the answer must fit, as text."""
        return next(iter(self._schemas), None)
