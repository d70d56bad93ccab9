#!/usr/bin/env python3
"""Writes docs/reference from the code: parameters, topics and services, command lines.

.venv/bin/python tools/make_reference.py            # writes the pages
.venv/bin/python tools/make_reference.py --check    # ends with code 1 where a page is not up to date
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
TYPES = {bool: "bool", int: "int", float: "float", str: "string"}
MADE = "<!-- Written by tools/make_reference.py: change the code, not this page. -->\n"


class _Captured(Exception):  # noqa: N818 - no error: it carries a parser out of main()
    """Raised in place of parsing; `parser` is what would have parsed."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that a module's main() makes."""
    main = importlib.import_module(module).main

    def capture(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Captured(self)

    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = capture
    try:
        main([])
    except _Captured as captured:
        return captured.parser
    finally:
        argparse.ArgumentParser.parse_args = original
    raise ValueError(f"{module}.main() parses no arguments")


def parameters_page() -> str:
    from sgrocc_ros.parameters import TABLE

    lines = [
        "# Parameters\n",
        MADE,
        "Every node knows its part of this table. How to set them: [Set parameters](../guides/parameters.md). *Live*:",
        "may be set while the node is configured and takes effect with the next frame; all others only before.",
    ]
    node = None
    for row in TABLE:
        if row.node != node:
            node = row.node
            lines += ["", f"## {node}", ""]
            lines += ["| name | type | default | unit | range | live | meaning |", "|---|---|---|---|---|---|---|"]
        dynamic = "yes" if row.dynamic else ""
        meaning = row.doc + (f" (read by {' and '.join(f'`{name}`' for name in row.also)}, too)" if row.also else "")
        cells = (
            f"`{row.name}`",
            TYPES[type(row.default)],
            f"`{_shown(row.default)}`",
            row.unit,
            _range(row),
            dynamic,
        )
        lines.append(_table_row(*cells, meaning))
    return "\n".join(lines) + "\n"


def interface_page() -> str:
    from sgrocc_ros.interface import SERVICES, TOPICS

    nodes = list(dict.fromkeys(row.node for row in TOPICS))
    lines = [
        "# Topics and services\n",
        MADE,
        "Topics are relative to the namespace, but for those that begin with `/`; services lie below their node's",
        "name. Inputs are remapped by the [launch arguments](../guides/parameters.md#launch-arguments). With",
        "`cameras: 'front rear'` they are `front/image`, `front/camera_info` and so on.",
    ]
    for node in nodes:
        lines += ["", f"## {node}"]
        for direction, title in (("in", "Hears"), ("out", "Says")):
            rows = [row for row in TOPICS if (row.node, row.direction) == (node, direction)]
            if rows:
                lines += ["", f"### {title}: {node}", "", "| topic | type | QoS | meaning |", "|---|---|---|---|"]
                lines += [_table_row(f"`{row.name}`", row.type, row.qos, row.meaning) for row in rows]
    lines += ["", "## Services", "", "| service | type | meaning |", "|---|---|---|"]
    for row in SERVICES:
        owner = row.node if row.node in nodes and " " not in row.node else "*node*"
        shown = f"`{owner}/{row.name}`" if owner == row.node else f"`~/{row.name}` of {row.node}"
        lines.append(_table_row(shown, row.type, row.meaning))
    lines += [
        "",
        "Each node is a [lifecycle node](https://design.ros2.org/articles/node_lifecycle.html) and has that kind's",
        "services, such as `ros2 lifecycle get /spatial_expert` calls.",
    ]
    return "\n".join(lines) + "\n"


def command_line_page() -> str:
    lines = [
        "# Command line\n",
        MADE,
        "`sgrocc` is `.venv/bin/sgrocc` after `make demo`, and `ros2 run sgrocc_ros sgrocc` on a robot. The others are",
        "`.venv/bin/python -m sgrocc_ros.NAME`, and `ros2 run sgrocc_ros NAME` on a robot.",
        "",
        "## make",
        "",
        "| command | meaning |",
        "|---|---|",
        *(_table_row(f"`{command}`", meaning) for command, meaning in make_targets()),
        "",
        "Launch files list their arguments with `ros2 launch sgrocc_ros sgrocc.launch.py --show-args`.",
    ]
    for parser in (*_sub_parsers(parser_of("sgrocc.cli")), _bench_parser(), *map(parser_of, tool_modules())):
        lines += _command_section(parser)
    return "\n".join(lines) + "\n"


def make_targets() -> Iterator[tuple[str, str]]:
    """(command, meaning) of what `make help` prints."""
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r'\t@echo "(make \S+(?: [A-Z]+=\S+)?) +(.+)"', line)
        if found:
            yield found[1], found[2]


def tool_modules() -> list[str]:
    """Those modules of sgrocc_ros which setup.py installs as commands and which are no nodes."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    scripts = [text.value for text in ast.walk(tree) if isinstance(text, ast.Constant) and isinstance(text.value, str)]
    found = (re.fullmatch(r"(\w+) = (sgrocc_ros\.\w+):main", text) for text in scripts)
    return [match[2] for match in found if match and not match[1].endswith("_node") and match[1] != "pipeline"]


PAGES = {"parameters.md": parameters_page, "interface.md": interface_page, "command_line.md": command_line_page}


def _sub_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The commands below a parser that do something; not the stand-ins of other packages' commands."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below and parser.add_help:
        yield parser
    for action in below:
        for sub in action.choices.values():
            yield from _sub_parsers(sub)


def _bench_parser() -> argparse.ArgumentParser:
    from sgrocc_ros.bench import add_command

    commands = argparse.ArgumentParser(prog="sgrocc").add_subparsers()
    add_command(commands)
    return commands.choices["bench"]


def _command_section(parser: argparse.ArgumentParser) -> list[str]:
    text = re.sub(r"\s+", " ", parser.description or "").strip()
    lines = ["", f"## {parser.prog}", "", _escaped(text), "", "| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        lines.append(_table_row(f"`{_spelled(action)}`", _described(action)))
    return lines


def _spelled(action: argparse.Action) -> str:
    """As one types it: `--size W H`."""
    name = ", ".join(action.option_strings)
    metavar = action.metavar or action.dest.upper()
    values = " ".join(metavar) if isinstance(metavar, tuple) else metavar
    if action.nargs == argparse.REMAINDER:
        values = "..."
    elif action.nargs in ("+", "*"):
        values = f"{values} ..."
    if not name:
        return values
    return name if action.nargs == 0 else f"{name} {values}"


def _described(action: argparse.Action) -> str:
    parts = [(action.help or "").replace("%%", "%")]
    if action.choices:
        parts.append(f"one of {', '.join(f'`{choice}`' for choice in action.choices)}")
    default = action.default
    if isinstance(default, (str, int, float, Path)) and not isinstance(default, bool) and "default" not in parts[0]:
        shown = str(default).replace(f"{ROOT}/", "")
        parts.append(f"default `{shown}`" if shown != argparse.SUPPRESS else "")
    if action.required and action.option_strings:
        parts.append("required")
    return "; ".join(part for part in parts if part)


def _range(row: object) -> str:
    if row.choices:
        return ", ".join(f"`{choice}`" for choice in row.choices)
    return "" if row.low is None else f"{row.low:g} to {row.high:g}"


def _shown(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def _table_row(*cells: str) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Without what would end a table's cell or begin markup, outside of code."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|"))
    return "".join(part if part.startswith("`") else re.sub(r"[<>*]", lambda m: f"\\{m[0]}", part) for part in parts)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, end with code 1 where a page differs")
    options = parser.parse_args(arguments)
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if stale and options.check:
        print(f"not up to date: {', '.join(stale)}; run tools/make_reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
