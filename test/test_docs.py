"""The documentation says what the code does: links, names, commands and quoted sentences; and its site builds."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sgrocc_ros.interface import EVERY, SERVICES, TOPICS
from sgrocc_ros.parameters import NODES, TABLE

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "models").rglob("*.md")])
PARAMETERS = {row.name: row for row in TABLE}
#: Below the name of a node.
OWN_TOPICS = {row.name.removeprefix(f"{row.node}/") for row in TOPICS if row.name.startswith(f"{row.node}/")}
TOPIC_NAMES = {row.name.lstrip("/") for row in TOPICS}

#: Names of other software that the pages speak of.
FOREIGN = set(
    "inscribed_obstacle_cost_value lethal_cost_threshold unknown_cost_value track_unknown_space trinary_costmap "
    "use_maximum rolling_window sensor_frame obstacle_max_range bond_timeout map_topic map_subscribe_transient_local "
    "publish_tf camera_link camera_color_optical_frame".split()
)

FENCED = re.compile(r"^```.*?^```", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"`[^`\n]*`|!?\[(?:[^][]|\[[^][]*\])*\]\(([^()\s]+)\)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors_of(page: Path) -> set[str]:
    """What headings of a page are called in links, as code hosts and the site name them."""
    found: list[str] = []
    for title in re.findall(r"^#{1,6} +(.+?) *$", FENCED.sub("", text_of(page)), re.M):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in filter(None, LINK.findall(FENCED.sub("", text_of(page)))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{target}: there is no {aim}"
        if anchor:
            assert anchor in anchors_of(aim), f"{target}: {aim.name} has no such heading"


def test_the_reference_is_up_to_date():
    pytest.importorskip("rclpy", reason="the tools' parsers come with ROS 2")
    made = load(ROOT / "tools" / "make_reference.py")
    stale = [name for name, page in made.PAGES.items() if text_of(made.FOLDER / name) != page()]
    assert not stale, "run .venv/bin/python tools/make_reference.py"


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words() -> set[str]:
    """Every identifier of the repository's code, configuration and commands."""
    files = [ROOT / "Makefile", ROOT / "setup.py", ROOT / "package.xml", ROOT / "pyproject.toml"]
    for folder in ("sgrocc", "sgrocc_ros", "launch", "tools", "test", "config", "models", "recordings", "interfaces"):
        files += [
            p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".yaml", ".xml", ".json", ".msg", ".rviz")
        ]
    own = {Path(__file__), ROOT / "config" / "nav2_sgrocc.yaml"}
    found: set[str] = set()
    for file in files:
        if file not in own and file.stat().st_size < 1e6:
            found.update(re.findall(r"\w+", text_of(file)))
    found |= {
        path.stem for folder in ("launch", "sgrocc", "sgrocc_ros", "tools") for path in (ROOT / folder).rglob("*.py")
    }
    return found | {f"no_{row.name}" for row in TOPICS if row.direction == "in"}  # reasons that the code composes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_in_code_exists(page, words):
    if page.name == "compared.md":  # most of its names are others'
        return
    for span in SPAN.findall(FENCED.sub("", text_of(page))):
        name = re.split(r":=|: | ", span)[0]
        if re.fullmatch(r"(memory|cost)\.\w+", name):
            assert name in PARAMETERS, f"`{span}`: there is no such parameter"
        elif re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+", name):
            assert name in words | FOREIGN, f"`{span}` is nowhere in the code"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_topic_and_service_exists(page):
    text = text_of(page)
    if page.name == "compared.md":
        text = "\n".join("|".join(line.split("|")[:3]) for line in text.splitlines())
    for name in re.findall(r"(?<![\w/.])/?((?:occupancy|gaussians|debug)/[a-z_]+)", text):
        assert name in TOPIC_NAMES, f"{name}: there is no such topic"
    services = {row.name for row in SERVICES} | OWN_TOPICS
    for name in re.findall(r"(?<![\w/.])~/([a-z_]+)(?![\w/])", text):
        if "_ws" not in name:  # a workspace in the home folder
            assert name in services, f"~/{name}: there is no such service"
    for name in re.findall(rf"(?:{'|'.join(NODES)})/([a-z_]+)", text):
        assert name in services, f"{name}: there is no such service"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_set_parameters_and_call_services_that_exist(page):
    text = text_of(page).replace("\\\n", " ")
    for node, name in re.findall(r"ros2 param set /(\w+) (\S+)", text):
        assert node in PARAMETERS[name].nodes, f"{node} has no {name}"
    for node, name, kind in re.findall(r"ros2 service call /(\w+)/(\w+) ([\w/]+)", text):
        if node.endswith("_costmap"):  # Nav2's
            continue
        rows = [row for row in SERVICES if row.name == name and row.node in (node, EVERY)]
        assert rows, f"{node} has no {name}"
        assert rows[0].type == kind.replace("/srv/", "/")


def literals_of_the_nodes() -> list[str]:
    found = []
    for path in (ROOT / "sgrocc_ros").glob("*.py"):
        if path.name != "interface.py":
            nodes = ast.walk(ast.parse(text_of(path)))
            found += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found


def test_the_interface_has_what_the_code_has():
    for literal in literals_of_the_nodes():
        if re.fullmatch(r"(debug|gaussians|occupancy)/[a-z_]+", literal):
            assert any(name.startswith(literal) for name in TOPIC_NAMES)
        if re.fullmatch(r"~/[a-z_]+", literal):
            assert literal[2:] in {row.name for row in SERVICES} | OWN_TOPICS


def test_every_row_of_the_interface_is_in_the_code():
    literals = set(literals_of_the_nodes())
    # Inputs are made of a stream and what its transport puts behind it.
    names = {
        part for row in TOPICS for part in re.split(r"(?=/compressed)", row.name.removeprefix(f"{row.node}/")) if part
    }
    spelled = names | {row.name for row in SERVICES}
    missing = {name for name in spelled if not literals & {name, f"~/{name}", name.removeprefix("gaussians/")}}
    assert not missing


def test_every_output_of_the_map_is_in_the_interface():
    outputs = pytest.importorskip("sgrocc_ros.outputs", reason="needs ROS 2")
    types = {row.name: row.type for row in TOPICS}
    for name, (kind, _) in outputs.OUTPUTS.items():
        assert types[name] == f"{kind.__module__.split('.')[0]}/{kind.__name__}"


# -- commands and sentences ----------------------------------------------------------------------------------------


def command_options() -> dict[str, set[str]]:
    """The options of each command, by the last words of its name, from the reference."""
    sections = re.split(r"^## ", text_of(ROOT / "docs" / "reference" / "command_line.md"), flags=re.M)[1:]
    return {s.splitlines()[0]: set(re.findall(r"^\| `(--[\w-]+)", s, re.M)) for s in sections}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_options_that_are_shown(page):
    options = command_options()
    text = re.sub(r"\\\n\s*", " ", text_of(page))
    shown = re.findall(
        r"(?:python3? -m sgrocc_ros\.|(?:\.venv/bin/|sgrocc_ros |`|^ {4})(?=sgrocc ))([^`\n#;|]+)", text, re.M
    )
    for line in shown:
        words = line.split(" -- ")[0].split()
        if words[0].startswith("sgrocc") and len(words) > 1 and words[1] in ("COMMAND", "build-engine...", "bench..."):
            continue
        name = next((n for n in (" ".join(words[:3]), " ".join(words[:2]), words[0]) if n in options), None)
        used = {word.split("=")[0] for word in words if word.startswith("--")} - {
            "--help",
            "--ros-args",
            "--params-file",
        }
        if name is None:
            assert not used, f"{line}: there is no such command"
            continue
        known = options[name] | {"--ros-args"}
        assert used <= known, f"{name} has no {used - known}"


def test_quoted_sentences_are_those_of_the_code():
    whole = "\0".join(literals_of_the_nodes())

    def said(piece: str) -> bool:
        """As one literal, or as the end of one and the beginning of another."""
        return piece in whole or any(
            f"{piece[:i]}\0" in whole and f"\0{piece[i:]}" in whole for i in range(1, len(piece))
        )

    quoted = re.findall(r"^> (.+)$", text_of(ROOT / "docs" / "troubleshooting.md"), re.M)
    assert len(quoted) > 10
    for sentence in quoted:
        for piece in sentence.split("..."):
            assert not piece.strip() or said(piece), f"{sentence!r}: no sentence of ours has {piece!r}"


def test_where_others_have_what_we_lack_a_reason_stands():
    rows = [line.split("|") for line in text_of(ROOT / "docs" / "compared.md").splitlines() if line.startswith("| ")]
    ours = {cells[1].strip(): cells[2].strip() for cells in rows if len(cells) > 8}
    assert len(ours) > 40
    for feature, cell in ours.items():
        assert len(cell.split()) > 2 or not cell.startswith("–"), f"{feature}: no reason"


# -- the site ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="pip install -r requirements/docs.txt")
    pytest.importorskip("material", reason="pip install -r requirements/docs.txt")
    pytest.importorskip("mkdocstrings", reason="pip install -r requirements/docs.txt")
    out = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stdout + result.stderr
    return out


def test_the_site_has_every_page_and_fetches_nothing(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    for name in ("readme", "models", "compact", "quality_declaration"):
        assert (site / f"{name}.html").is_file()
    for path in site.rglob("*.html"):
        html = text_of(path)
        assert not re.search(r"<(?:script|img|iframe)[^>]*src=\"?(?:https?:)?//", html), f"{path.name} fetches"
        assert not re.search(r"<link[^>]*(?:stylesheet|preconnect|icon)[^>]*href=\"?(?:https?:)?//", html), path.name


def test_the_site_shows_configuration_examples_and_docstrings(site):
    nav2 = re.sub(r"<[^>]+>", "", text_of(site / "guides" / "nav2.html"))
    assert "nav2_costmap_2d::StaticLayer" in nav2 and "bond_timeout: 0.0" in nav2
    assert "def pass_on" in re.sub(r"<[^>]+>", "", text_of(site / "guides" / "octomap_moveit.html"))
    assert "One persistent set of Gaussians" in text_of(site / "reference" / "python.html") or (
        "id=sgrocc.memory.gaussian_memory.GaussianMemory.fuse"
        in text_of(site / "reference" / "python.html").replace('"', "")
    )


# -- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_shown_and_compile(path):
    compile(text_of(path), str(path), "exec")
    shown = f'--8<-- "{path.relative_to(ROOT).as_posix()}"'
    assert any(shown in text_of(page) for page in PAGES)
