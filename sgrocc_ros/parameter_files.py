"""What is written from the table of parameters: the shipped YAML, its JSON schema, the README's table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from sgrocc_ros.parameters import TABLE, Parameter

MARKS = "<!-- parameters -->", "<!-- /parameters -->"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def to_yaml() -> str:
    """The table as the parameter file that the package ships."""
    lines = [
        "# yaml-language-server: $schema=sgrocc.schema.json",
        "# Every parameter with its default. Units are in the names.",
        "/**:",
        "  ros__parameters:",
    ]
    node = None
    for row in TABLE:
        if row.node != node:
            node = row.node
            lines += ["", f"    # {node}"]
        lines.append(f"    {row.name}: {default_of(row)}  # {row.doc}{_bounds_of(row)}")
    return "\n".join(lines) + "\n"


def to_json_schema() -> str:
    """The schema (draft 2020-12) of a parameter file, for editors and for checks without ROS."""
    properties = {}
    for row in TABLE:
        properties[row.name] = {"type": _TYPES[type(row.default)], "default": row.default, "description": row.doc}
        if row.low is not None:
            properties[row.name].update(minimum=row.low, maximum=row.high)
        if row.choices:
            properties[row.name]["enum"] = list(row.choices)
    own = {"type": "object", "properties": properties, "additionalProperties": False}
    own["properties"] |= {"use_sim_time": {"type": "boolean"}, "start_type_description_service": {"type": "boolean"}}
    own["patternProperties"] = {"^qos_overrides[.]": {}}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of sgrocc_ros",
        "type": "object",
        "required": ["/**"],
        "properties": {
            "/**": {
                "type": "object",
                "required": ["ros__parameters"],
                "properties": {"ros__parameters": own},
                "additionalProperties": False,
            }
        },
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=2) + "\n"


def to_markdown() -> str:
    """The table as the README shows it."""
    lines = ["| parameter | default | live | meaning |", "|---|---|---|---|"]
    for row in TABLE:
        live = "yes" if row.dynamic else ""
        lines.append(f"| `{row.name}` | `{default_of(row)}` | {live} | {row.doc}{_bounds_of(row)} |")
    return "\n".join(lines) + "\n"


def default_of(row: Parameter) -> str:
    """The default as it stands in YAML."""
    return yaml.safe_dump(row.default).splitlines()[0]


def _bounds_of(row: Parameter) -> str:
    if row.choices:  # no "|" between them: it would end the cell of the README's table
        return f" ({', '.join(row.choices)})"
    return "" if row.low is None else f" ({row.low:g} to {row.high:g})"


def main(args: list[str] | None = None) -> int:
    """Write all three again, in the repository."""
    root = Path(__file__).resolve().parents[1]
    (root / "config" / "sgrocc.yaml").write_text(to_yaml())
    (root / "config" / "sgrocc.schema.json").write_text(to_json_schema())
    readme = root / "README.md"
    before, _, rest = readme.read_text().partition(MARKS[0])
    readme.write_text(before + MARKS[0] + "\n" + to_markdown() + MARKS[1] + rest.partition(MARKS[1])[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
