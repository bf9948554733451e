#!/usr/bin/env bash
# Build the message packages into a virtual environment that has ROS 2 from PyPI wheels: build_in_venv.sh VENV
set -euo pipefail

venv=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
python=$venv/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy=$("$python" -c 'import numpy; print(numpy.get_include())')

# The wheels' CMake files name the directories of the machine that built them, until this has run once.
{ grep -rlE '/opt/python/cp3' "$venv"/share/*/cmake 2>/dev/null || true; } | xargs -r sed -i -E \
  -e "s#/opt/python/cp3[^/;\"]*/include/python3\.[0-9]+#$include#g" \
  -e "s#/opt/python/cp3[^/;\"]*/lib/python3\.[0-9]+/site-packages/numpy/_core/include#$numpy#g"

export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
export LD_LIBRARY_PATH=$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PYTHONPATH=$site
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for package in "$here" "$here/../sensebind/interfaces/audio_common_msgs" "$here/../sensebind/interfaces/rosbag2_interfaces"; do
  name=$(sed -n 's:.*<name>\(.*\)</name>.*:\1:p' "$package/package.xml")
  cmake -S "$package" -B "$work/$name" -G Ninja -Wno-dev -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
    -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" -Drosidl_default_generators_DIR="$here" \
    >"$work/$name.log" 2>&1 &&
    cmake --build "$work/$name" --target install >>"$work/$name.log" 2>&1 ||
    { cat "$work/$name.log"; echo "building $name failed"; exit 1; }
  for kind in msg srv; do
    [ ! -d "$package/$kind" ] || "$python" -c "import $name.$kind" ||
      { echo "$name was built and cannot be imported"; exit 1; }
  done
  echo "built $name"
done
