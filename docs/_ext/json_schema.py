"""A JSON Schema as a page shows it: the names, what stands behind each, and what it means, level by level.

    ```{json-schema} results.schema.json
    ```

The file is one of those that ship in reports/schemas. A definition that is used twice is shown where it is used first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SCHEMAS = Path(__file__).parents[2] / "reports" / "schemas"
Schema = dict[str, Any]


class JsonSchema(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Its description, and a list of its names."""
        path = SCHEMAS / self.arguments[0]
        self.env.note_dependency(str(path))
        self.root = json.loads(path.read_text())
        self.shown: set[str] = set()
        return [nodes.paragraph("", self.root["description"]), *self.fields(self.root)]

    def fields(self, schema: Schema) -> list[nodes.Node]:
        """What stands in an object, or in the objects of a list."""
        while "$ref" in schema or "items" in schema or isinstance(schema.get("additionalProperties"), dict):
            if "$ref" in schema:
                if schema["$ref"] in self.shown:
                    return []
                self.shown.add(schema["$ref"])
            schema = (
                self.resolved(schema) if "$ref" in schema else schema.get("items", schema.get("additionalProperties"))
            )
        for choice in schema.get("anyOf", ()):
            if found := self.fields(choice):
                return found
        found = nodes.definition_list(classes=["schema"])
        for name, inner in schema.get("properties", {}).items():
            term = nodes.term("", "", nodes.literal("", name), nodes.Text(f" {self.kind(inner)}"))
            if name not in schema.get("required", ()):
                term += nodes.Text(", may be missing")
            said = inner.get("description", self.resolved(inner).get("description", ""))
            body = nodes.definition("", *([nodes.paragraph("", said)] if said else []), *self.fields(inner))
            found += nodes.definition_list_item("", term, body)
        return [found] if found.children else []

    def resolved(self, schema: Schema) -> Schema:
        """The schema that a reference stands for."""
        return self.root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    def kind(self, schema: Schema) -> str:
        """Its type in words."""
        schema = self.resolved(schema)
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " or ".join(map(json.dumps, schema["enum"]))
        if "anyOf" in schema:
            return " or ".join(map(self.kind, schema["anyOf"]))
        types = schema.get("type", "anything")
        types = [types] if isinstance(types, str) else types
        inner = self.kind(schema["items"]) if "items" in schema else ""
        return " or ".join(f"list of {inner}" if kind == "array" and inner else kind for kind in types)


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the directive."""
    app.add_directive("json-schema", JsonSchema)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
