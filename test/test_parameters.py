"""The table of parameters: the shipped file, every refusal and its sentence, the live node, the real process."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
import yaml
from jsonschema import Draft202012Validator
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from sgrocc_ros import parameter_files, parameters
from sgrocc_ros.lifecycle import LiveParameters
from sgrocc_ros.parameters import TABLE, BadParameter, complete, from_yaml

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = 158
DEFAULTS = {parameter.name: parameter.default for parameter in TABLE}
BY_NAME = {parameter.name: parameter for parameter in TABLE}


def refusal(given: dict) -> str:
    """The sentence with which these values are refused."""
    with pytest.raises(BadParameter) as caught:
        complete(given)
    return str(caught.value)


# -- the table and what is written from it -------------------------------------------------------------------------


def test_the_shipped_file_is_the_table():
    shipped = (ROOT / "config" / "sgrocc.yaml").read_text()
    assert shipped == parameter_files.to_yaml(), "run: python -m sgrocc_ros.parameter_files"
    assert from_yaml(ROOT / "config" / "sgrocc.yaml") == DEFAULTS


def test_the_readme_shows_the_table():
    readme = ROOT / "README.md"
    text = readme.read_text()
    shown = text.split("<!-- parameters -->")[1].split("<!-- /parameters -->")[0]
    assert shown.strip() == parameter_files.to_markdown().strip(), "run: python -m sgrocc_ros.parameter_files"


def test_the_readmes_table_has_one_row_of_four_cells_for_each_parameter():
    rows = parameter_files.to_markdown().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(DEFAULTS)
    assert [yaml.safe_load(row.split("`")[3]) for row in rows] == list(DEFAULTS.values())
    assert all(row.count("|") == 5 for row in rows)
    live = [row.split("`")[1] for row in rows if "| yes |" in row]
    assert live == [row.name for row in TABLE if row.dynamic] and "memory.max_frames" in live and "model" not in live


def test_the_schema_takes_what_the_table_takes_and_nothing_else():
    schema = json.loads((ROOT / "config" / "sgrocc.schema.json").read_text())
    assert schema == json.loads(parameter_files.to_json_schema()), "run: python -m sgrocc_ros.parameter_files"

    def takes(**given) -> bool:
        return Draft202012Validator(schema).is_valid({"/**": {"ros__parameters": given}})

    assert Draft202012Validator(schema).is_valid(yaml.safe_load((ROOT / "config" / "sgrocc.yaml").read_text()))
    assert takes(use_sim_time=True, resolution_m=0.1) and takes(**{"qos_overrides./tf.subscription.depth": 5})
    assert not takes(resolutoin_m=0.1) and not takes(resolution_m=5.0) and not takes(resolution_m="fine")
    assert not takes(expert="guess") and not takes(engine_threads=1.5)
    assert not Draft202012Validator(schema).is_valid({"/gaussian_memory": {"ros__parameters": {}}})


def test_every_default_passes_its_own_check_and_is_complete():
    assert complete({}) == DEFAULTS
    assert all(type(complete({})[name]) is type(default) for name, default in DEFAULTS.items())
    assert len(DEFAULTS) == len(TABLE)


def test_every_number_has_bounds_and_every_row_says_what_it_means():
    for row in TABLE:
        if type(row.default) in (int, float):
            assert row.low < row.high, f"{row.name} needs low and high: they are what refuses NaN and infinity"
        else:
            assert row.low is None and row.high is None
        assert row.doc and "\n" not in row.doc
        assert row.node in (*parameters.NODES, parameters.EVERY) and set(row.nodes) <= set(parameters.NODES)


def test_every_parameter_is_read_somewhere():
    code = "".join(path.read_text() for path in (ROOT / "sgrocc_ros").glob("*.py") if path.name != "parameters.py")
    code += (ROOT / "sgrocc_ros" / "parameters.py").read_text().partition("Values = dict")[2]
    for row in TABLE:
        if not row.name.startswith(("memory.", "cost.")):  # read as a group: memory_config and costs
            assert f'["{row.name}"]' in code or f'"{row.name}")' in code, f"nothing reads {row.name}"


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("resolutoin_m", "resolution_m"),
        ("resolution", "resolution_m"),
        ("max_gaussians", "memory.max_gaussians"),
        ("memory.temprature", "memory.temperature"),
        ("octomap_rate", "octomap_rate_hz"),
        ("Expert", "expert"),
        ("use_sim_times", "publish_rate_hz"),  # not let through for its beginning
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(wrong, right):
    sentence = refusal({wrong: 1.0})
    if wrong == "use_sim_times":
        assert sentence.startswith("there is no parameter use_sim_times: ")
    else:
        assert sentence == f"there is no parameter {wrong}: did you mean {right}?"


def test_a_name_like_no_other_is_refused_as_well():
    assert refusal({"qqqq": 1}) == "there is no parameter qqqq: see the table of parameters in the README"


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_parameter_refuses_another_type(name):
    default = DEFAULTS[name]
    for value in (None, [default], True, 1.5 if type(default) is int else "7" if type(default) is float else 7):
        if type(value) is type(default):
            continue
        kind = type(default).__name__
        assert refusal({name: value}) == f"parameter {name} is {value!r}: give a {kind} such as {default!r}"


@pytest.mark.parametrize("name", [row.name for row in TABLE if row.low is not None])
def test_each_number_refuses_what_lies_outside_its_range_and_takes_its_bounds(name):
    row = BY_NAME[name]
    kind = type(row.default)
    for value in (kind(row.low), kind(row.high)):
        assert row.checked(value) == value and type(row.checked(value)) is kind
    outside = [kind(row.low) - 1, kind(row.high) + 1]
    if kind is float:
        outside += [math.nextafter(row.low, -math.inf), math.nextafter(row.high, math.inf), 10**400]
        outside += [math.nan, math.inf, -math.inf]
    for value in outside:
        assert refusal({name: value}) == (f"parameter {name} is {value}: give a value from {row.low:g} to {row.high:g}")


@pytest.mark.parametrize("name", [row.name for row in TABLE if row.choices])
def test_each_choice_refuses_what_is_not_one(name):
    choices = BY_NAME[name].choices
    assert all(BY_NAME[name].checked(choice) == choice for choice in choices)
    for value in ("", choices[0].upper(), f"{choices[0]} "):
        assert refusal({name: value}) == f"parameter {name} is {value!r}: choose one of {', '.join(choices)}"


def test_an_int_stands_for_a_float_and_nothing_else_does():
    value = complete({"resolution_m": 1})["resolution_m"]
    assert value == 1.0 and type(value) is float
    assert refusal({"engine_threads": True}) == "parameter engine_threads is True: give a int such as 1"
    assert "give a float" in refusal({"resolution_m": True})
    assert "give a int" in refusal({"max_anchors": 16200.0})


@pytest.mark.parametrize(
    "given, sentence",
    [
        (
            {"expert": "geometric", "depth_source": "network"},
            "the geometric expert has no network: set depth_source to topic, or expert to learned",
        ),
        (
            {"model": ""},
            "the learned expert needs a model: set `model` to a folder under models/, or to a path",
        ),
        (
            {"grid_min_height_m": 1.5, "grid_max_height_m": 1.5},
            "grid_min_height_m must be less than grid_max_height_m",
        ),
        ({"grid_min_height_m": 2.0}, "grid_min_height_m must be less than grid_max_height_m"),
        (
            {"cameras": "front rear", "camera_frame": "camera"},
            "camera_frame would put all cameras in one place: leave it empty, and let each image name its frame",
        ),
        (
            {"cameras": " ".join(f"c{i}" for i in range(33))},
            "cameras has 33 names: give 32 at most",
        ),
        ({"min_depth_m": 4.0}, "min_depth_m 4.0 must be less than max_depth_m 4.0"),
        (
            {"memory.lowest_confidence": 1.0},
            "lowest_confidence must be less than highest_confidence, both between 0 and 1",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(given, sentence):
    assert refusal(given) == sentence


def test_the_same_values_pass_where_they_do_not_contradict():
    assert complete({"expert": "learned", "model": "m", "depth_source": "network"})["depth_source"] == "network"
    assert complete({"min_depth_m": 4.0, "max_depth_m": 4.5})["min_depth_m"] == 4.0
    assert complete({"grid_min_height_m": -2, "grid_max_height_m": -1})["grid_max_height_m"] == -1.0


def test_what_rclpy_declares_itself_passes_and_is_left_out():
    foreign = {
        "use_sim_time": True,
        "start_type_description_service": False,
        "qos_overrides./occupancy/points.publisher.reliability": "best_effort",
    }
    assert complete({**foreign, "resolution_m": 0.1}) == {**DEFAULTS, "resolution_m": 0.1}


def test_the_values_reach_the_memory_and_the_expert():
    values = complete(
        {"expert": "geometric", "resolution_m": 0.1, "min_depth_m": 0.5, "memory.max_frames": 3.0, "max_anchors": 500}
    )
    memory = parameters.memory_config(values)
    assert (memory.resolution, memory.min_depth_m, memory.max_frames) == (0.1, 0.5, 3.0)
    assert parameters.make_expert(values).depth_source == "topic"


# -- files ---------------------------------------------------------------------------------------------------------


def parameter_file(folder: Path, text: str) -> Path:
    path = folder / "robot.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "/**:\n  ros__parameters:\n    memory:\n      max_frames: 3.0\n      temperature: 1\n    resolution_m: 0.1\n",
        "/**:\n  ros__parameters:\n    memory.max_frames: 3.0\n    memory.temperature: 1\n    resolution_m: 0.1\n",
        "/**: {ros__parameters: {memory: {max_frames: 3.0}, memory.temperature: 1.0, resolution_m: 0.1}}\n",
    ],
    ids=["nested", "dotted", "mixed"],
)
def test_groups_may_be_nested_or_dotted(tmp_path, text):
    given = {"memory.max_frames": 3.0, "memory.temperature": 1.0, "resolution_m": 0.1}
    assert from_yaml(parameter_file(tmp_path, text)) == {**DEFAULTS, **given}


def test_an_unknown_name_within_a_group_is_named_in_full(tmp_path):
    path = parameter_file(tmp_path, "/**:\n  ros__parameters:\n    memory:\n      max_frame: 3\n")
    with pytest.raises(
        BadParameter, match=r"^there is no parameter memory\.max_frame: did you mean memory\.max_frames\?$"
    ):
        from_yaml(path)


@pytest.mark.parametrize(
    "text",
    ["", "a sentence", "- 1\n", "/**:\n", "/**: 5\n", "/**:\n  resolution_m: 0.1\n", "/**:\n  ros__parameters:\n"]
    + ["/**:\n  ros__parameters: [1]\n", "/gaussian_memory:\n  ros__parameters:\n    resolution_m: 0.1\n"],
)
def test_a_file_without_the_section_is_refused(tmp_path, text):
    path = parameter_file(tmp_path, text)
    with pytest.raises(BadParameter) as caught:
        from_yaml(path)
    assert str(caught.value) == (f"{path} is not a parameter file: it needs '/**:' and below it 'ros__parameters:'")


def test_a_section_that_would_be_left_out_is_refused(tmp_path):
    text = "/**:\n  ros__parameters: {}\n/gaussian_memory:\n  ros__parameters:\n    resolution_m: 0.1\n"
    path = parameter_file(tmp_path, text)
    with pytest.raises(BadParameter) as caught:
        from_yaml(path)
    assert str(caught.value) == (
        f"{path} has sections that are not read here, /gaussian_memory: put their parameters below '/**'"
    )


@pytest.mark.parametrize(
    "content",
    [b"/**: {", b"\xff\xfe\x00", b"/**: !!python/object:os.system {}", b"/**: {a: 2024-99-99}", b"a: " + 5000 * b"9"],
    ids=["unclosed", "no text", "a tag", "a broken date", "a huge number"],
)
def test_a_file_that_is_not_yaml_is_refused(tmp_path, content):
    path = tmp_path / "robot.yaml"
    path.write_bytes(content)
    with pytest.raises(BadParameter) as caught:
        from_yaml(path)
    assert str(caught.value).startswith(f"{path} cannot be read as YAML (") and "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            from_yaml(path)
        assert str(caught.value) == f"there is no parameter file {path}: give the path of a YAML file"


# -- a live node ---------------------------------------------------------------------------------------------------


@pytest.fixture
def make_node():
    """Makes nodes with overrides, in a ROS context and a domain of their own."""
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    nodes = []

    def make(kind: str, arguments: tuple[str, ...] = (), **overrides) -> Node:
        given = [RosParameter(name, value=value) for name, value in overrides.items()]
        cli_args = ["--ros-args", *arguments] if arguments else None
        node = Node("probe", context=context, parameter_overrides=given, cli_args=cli_args)
        node.is_configured = False
        node.live = LiveParameters(node, kind, lambda: node.is_configured)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_node_shows_its_part_of_the_table_with_the_overrides(make_node):
    node = make_node(parameters.MEMORY, resolution_m=0.1, **{"memory.max_frames": 3.0, "max_pose_wait_s": 2})
    assert node.live.checked() == {**DEFAULTS, "resolution_m": 0.1, "memory.max_frames": 3.0, "max_pose_wait_s": 2.0}
    for row in TABLE:
        assert node.has_parameter(row.name) == (parameters.MEMORY in row.nodes)
        if parameters.MEMORY in row.nodes:
            assert node.get_parameter(row.name).value == node.live.values[row.name]
            assert node.describe_parameter(row.name).description == row.doc


def test_the_shipped_file_and_the_command_line_reach_a_node_and_the_later_one_wins(make_node):
    file = str(ROOT / "config" / "sgrocc.yaml")
    arguments = ("--params-file", file, "-p", "resolution_m:=0.2", "-p", "global_frame:=map")
    node = make_node(parameters.MEMORY, arguments)
    assert node.live.checked() == {**DEFAULTS, "resolution_m": 0.2, "global_frame": "map"}


@pytest.mark.parametrize("kind", parameters.NODES)
def test_while_a_node_is_configured_only_dynamic_parameters_change(make_node, kind):
    node = make_node(kind)
    for is_configured in (True, False):
        node.is_configured = is_configured
        for row in TABLE:
            if kind in row.nodes:
                [result] = node.set_parameters([RosParameter(row.name, value=row.default)])
                assert result.successful == (row.dynamic or not is_configured), row.name
                if not result.successful:
                    assert result.reason == (
                        f"{row.name} cannot change while the node is configured: set it after `cleanup`, or restart "
                        "with it"
                    )


def test_a_change_is_taken_as_a_whole_or_not_at_all(make_node):
    node = make_node(parameters.PUBLISHER)
    node.is_configured = True
    told = []
    node.live.changed = told.append
    both = {"grid_min_height_m": 2.0, "grid_max_height_m": 3.0}
    [lone] = node.set_parameters([RosParameter("grid_min_height_m", value=2.0)])
    assert not lone.successful and lone.reason == "grid_min_height_m must be less than grid_max_height_m"
    bad = [RosParameter(name, value=value) for name, value in {**both, "cost.wall": 5, "max_markers": 0}.items()]
    assert not node.set_parameters_atomically(bad).successful
    assert node.live.values == DEFAULTS and not told
    assert node.set_parameters_atomically([RosParameter(n, value=v) for n, v in both.items()]).successful
    assert node.live.values == {**DEFAULTS, **both} and told == [set(both)]


def test_what_was_given_wrong_is_refused_until_it_is_set_right(make_node):
    node = make_node(parameters.MEMORY, resolution_m=-1.0)
    with pytest.raises(BadParameter, match="resolution_m is -1.0: give a value from"):
        node.live.checked()
    [result] = node.set_parameters([RosParameter("resolution_m", value=0.1)])
    assert result.successful and node.live.checked()["resolution_m"] == 0.1
    node = make_node(parameters.MEMORY, resolutoin_m=0.1)
    with pytest.raises(BadParameter, match="there is no parameter resolutoin_m: did you mean resolution_m"):
        node.live.checked()


# -- a real process ------------------------------------------------------------------------------------------------


def start_pipeline(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of stderr that are ours, of a pipeline that should not start."""
    line = [sys.executable, "-m", "sgrocc_ros.pipeline", "--ros-args"]
    for argument in arguments:
        line += ["--params-file", argument] if argument.endswith(".yaml") else ["-p", argument]
    env = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    result = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert result.stdout == ""
    # Warp says on its own account that a machine has no GPU.
    lines = [text for text in result.stderr.splitlines() if not text.startswith("Warp ")]
    return result.returncode, [re.sub(r"^\[ERROR\] \[[0-9.]+\] \[\w+\]: ", "refused: ", text) for text in lines]


@pytest.mark.parametrize("section", ["pipeline", "/pipeline", "/robot/pipeline"])
def test_a_section_that_is_of_no_node_ends_the_pipeline_with_one_sentence(tmp_path, section):
    path = tmp_path / "robot.yaml"
    path.write_text(f"{section}:\n  ros__parameters:\n    max_depth_m: 3.0\n")
    code, sentences = start_pipeline(str(path))
    assert code == 2 and sentences == [
        f"sgrocc: {path} has a section 'pipeline', and no node has that name: put its parameters below '/**'"
    ]


def test_a_misspelt_parameter_ends_the_pipeline_with_one_sentence():
    assert start_pipeline("resolutoin_m:=0.1") == (
        2,
        ["refused: there is no parameter resolutoin_m: did you mean resolution_m?"],
    )


def test_a_value_of_another_type_ends_the_pipeline_with_one_sentence():
    assert start_pipeline("resolution_m:=fine") == (
        2,
        ["refused: parameter resolution_m is 'fine': give a float such as 0.08"],
    )


def flip_a_byte(model: Path) -> str:
    content = bytearray((model / "expert.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (model / "expert.onnx").write_bytes(content)
    return f"{model}/expert.onnx is corrupt, its sha256 is not the one in the manifest: fetch the model again"


def garbage_manifest(model: Path) -> str:
    (model / "manifest.yaml").write_bytes(bytes(range(256)))
    return f"{model}/manifest.yaml is not YAML text (UnicodeDecodeError): fetch the model again"


@pytest.mark.parametrize("spoil", [flip_a_byte, garbage_manifest])
def test_a_corrupt_model_ends_the_pipeline_with_one_sentence(tmp_path, spoil):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "random_expert", model)
    sentence = spoil(model)
    assert start_pipeline("expert:=learned", f"model:={model}") == (2, [f"refused: {sentence}"])
