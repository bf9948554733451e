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
# Isolates the nodes of a test run from other nodes: this computer only, and a random ROS domain (1 to 101).
ALONE := ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST ROS_DOMAIN_ID=$$((1 + $$(od -An -N2 -tu2 /dev/urandom) % 101))

.PHONY: demo test lint docs screenshot clean
demo: $(READY)
	$(BIN)/sensebind demo

test: $(READY)
	$(ALONE) $(BIN)/python -m pytest -m "not slow"

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

$(READY): setup.py constraints.txt $(wildcard sensebind_msgs/msg/*.msg sensebind_msgs/srv/*.srv sensebind_msgs/*.sh)
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
ifdef ROS_DISTRO
	$(BIN)/python -c "import sensebind_msgs.msg" || { echo "build and source the workspace first: see README.md"; exit 1; }
else
	sensebind_msgs/build_in_venv.sh $(VENV)
endif
	touch $@

clean:
	rm -rf $(VENV) build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis out
