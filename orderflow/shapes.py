"""JSON Schema of the types that validate and answer, and what these need besides: money, times, words, raw JSON.

/openapi.json and docs/asyncapi.yaml are made of it.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from orderflow.events import Event
from orderflow.orders import PRINTABLE, TOTAL_MAX, Currency, Item, Money, Status

#: JSON Schema has no exact decimals: over binary floats "two places" can only be meant.
_AMOUNT = {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": int(TOTAL_MAX)}

# Our patterns in ECMA 262, which has no lookahead to the very end and needs none: its `$` is the very end. What is
# space to Python is named, since it is not quite the same there.
_SPACE = r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = rf"\u0009-\u000d\u001c-\u001f\u0085{_SPACE}"
_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_PATTERNS = {PRINTABLE: f"^[^{_CONTROL}]*[^{_CONTROL}{_SPACE}][^{_CONTROL}]*$", r"\S": f"[^{_SPACES}]"}
_VERY_END = r"(?![\s\S])"

#: In a schema: which type's JSON stands there, written already.
_WRITTEN = "written"
_TYPES = {"amount": Money, "items": tuple[Item, ...], "event": Event}


class Schemas:
    """Makes schemas, and keeps those with a name, which the others refer to. ``template`` is how: ``#/x/{name}``."""

    def __init__(self, template: str) -> None:
        self._template = template
        self.named: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """Give the schema of a type.

        Raises:
            ValueError: two types of one name differ.

        """
        (schema,), named = msgspec.json.schema_components([kind], schema_hook=_hook, ref_template=self._template)
        for name, one in named.items():
            portable = self._portable(one)
            if self.named.setdefault(name, portable) != portable:
                raise ValueError(f"two types have the name {name!r}")
        return dict(self._portable(schema))

    def _portable(self, schema: Any) -> Any:
        """Write patterns as every reader understands them, and what stands for written JSON."""
        if isinstance(schema, list):
            return [self._portable(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        portable = {name: self._portable(value) for name, value in schema.items() if name != _WRITTEN}
        if _WRITTEN in schema:
            portable |= self.of(_TYPES[schema[_WRITTEN]])
        if isinstance(pattern := portable.get("pattern"), str):
            portable["pattern"] = portable_pattern(pattern)
        if isinstance(text := portable.get("description"), str):
            portable["description"] = cleandoc(text).replace("``", "`")
        return portable


def portable_pattern(pattern: str) -> str:
    """Give an equal pattern for readers of ECMA 262."""
    return _PATTERNS.get(pattern, pattern.replace(_VERY_END, "$"))


def _hook(kind: type) -> dict[str, Any]:
    if kind is Money:
        return dict(_AMOUNT)
    raise NotImplementedError(kind)


def _words(kind: type[Status | Currency]) -> Meta:
    return Meta(extra_json_schema={"enum": [word.value for word in kind]})


#: RFC 3339, in UTC.
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
StatusWord = Annotated[str, _words(Status)]
CurrencyWord = Annotated[str, _words(Currency)]
RawAmount = Annotated[msgspec.Raw, Meta(extra_json_schema={_WRITTEN: "amount"})]
RawItems = Annotated[msgspec.Raw, Meta(extra_json_schema={_WRITTEN: "items"})]
RawEvent = Annotated[msgspec.Raw, Meta(extra_json_schema={_WRITTEN: "event"})]
