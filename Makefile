# `make demo` runs the demo, `make test` runs the tests. The first run sets up a virtual environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# If ROS is sourced, its rclpy is used. Otherwise ROS 2 is installed from PyPI wheels.
ifdef ROS_DISTRO
EXTRAS := fast,test,lint
VENV_OPTIONS := --system-site-packages
else
EXTRAS := ros,fast,test,lint
VENV_OPTIONS :=
endif
# A virtual environment with ROS 2 Jazzy from PyPI wheels, for `make test-jazzy`.
JAZZY := .venv-jazzy
JAZZY_READY := $(JAZZY)/.ready
JAZZY_CMAKE := $(addprefix ros-ament-cmake-,ros gmock gtest pytest)
# The tests of what uses ROS: nodes, conversion of messages, parameters and configurations, examples, live = replay.
ROS_TESTS := tests/nodes tests/io tests/config tests/docs/test_examples.py tests/training/test_onset_thresholds.py
MESSAGES := $(wildcard sensebind_msgs/msg/*.msg sensebind_msgs/srv/*.srv sensebind_msgs/*.sh sensebind_msgs/*.cmake)
# Processes that run tests at the same time. Each needs about 2 GB of memory.
WORKERS ?= 2
PYTEST := -m pytest -n $(WORKERS) --dist worksteal -m "not slow"
# Isolates the nodes of a test run from other nodes: this computer only, and a random ROS domain (1 to 101).
ALONE := ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$$((1 + $$(od -An -N2 -tu2 /dev/urandom) % 101))
# The compiled modules are kept, also where this variable is set: the tests start hundreds of processes, and each would
# compile PyTorch and the rest again.
TEST_SETTINGS := PYTHONDONTWRITEBYTECODE= $(ALONE)
# An older pip, as in Python 3.11, takes twice the CPU time to find the versions of the packages.
PIP := "pip>=25"

.PHONY: demo test test-jazzy lint docs screenshot clean
demo: $(READY)
	$(BIN)/sensebind demo

test: $(READY)
	$(TEST_SETTINGS) $(BIN)/python $(PYTEST)

test-jazzy: $(JAZZY_READY)
	$(TEST_SETTINGS) $(JAZZY)/bin/python $(PYTEST) $(ROS_TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/vocabulary.py

# Writes the tables of parameters into the documentation (docs/*.md and README.md), and the layout for Foxglove.
docs: $(READY)
	$(BIN)/python docs/parameter_tables.py
	$(BIN)/python docs/foxglove_layout.py

# The image of the README: the report of a demo. Needs Chromium or Chrome.
screenshot: demo
	$(BIN)/python docs/report_screenshot.py out/demo/report.html docs/report.png

# `--no-compile`: Python compiles the few modules that are imported when it first imports them.
$(READY): setup.py constraints.txt $(MESSAGES)
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[$(EXTRAS)]"
ifdef ROS_DISTRO
	$(BIN)/python -c "import sensebind_msgs.msg" || { echo "build and source the workspace first: see README.md"; exit 1; }
else
	sensebind_msgs/build_in_venv.sh $(VENV)
endif
	touch $@

# Jazzy's versions of the ROS packages replace those of constraints.txt. Its generators also need JAZZY_CMAKE.
$(JAZZY_READY): setup.py constraints.txt constraints-jazzy.txt $(MESSAGES)
	$(PYTHON) -m venv $(JAZZY)
	$(JAZZY)/bin/python -m pip install --quiet $(PIP)
	grep -v '^ros-' constraints.txt | cat - constraints-jazzy.txt > $(JAZZY)/constraints.txt
	$(JAZZY)/bin/python -m pip install --quiet --no-compile -c $(JAZZY)/constraints.txt -e ".[ros,fast,test]" $(JAZZY_CMAKE)
	sensebind_msgs/build_in_venv.sh $(JAZZY)
	touch $@

clean:
	rm -rf $(VENV) $(JAZZY) build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis out
