# Everything here runs in the virtual environment that tools/set_up.py makes; see `make help`.
PYTHON ?= python3
SGROCC_VENV ?= $(CURDIR)/.venv
VENV_PYTHON = $(SGROCC_VENV)/bin/python

# One machine only, with a shared memory large enough for images.
export SGROCC_VENV
export ROS_AUTOMATIC_DISCOVERY_RANGE = LOCALHOST
export FASTDDS_DEFAULT_PROFILES_FILE = $(CURDIR)/config/fastdds_localhost.xml
# Sleeping threads leave the processor to others.
export OMP_WAIT_POLICY = PASSIVE
export OPENBLAS_NUM_THREADS = 1
# A sourced ROS 2 stays outside.
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH ROS_DISTRO
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help python set-up demo synthrooms train test test-robot soak chaos fuzz bench gpu-check lint docs clean

help:
	@echo "make demo                 set up (once) and run the demo on the recording that comes with the package"
	@echo "make demo SEQUENCE=path   the same on a sequence of your own; EXPERT=geometric: without a network"
	@echo "make synthrooms OUT=path  generate the SynthRooms benchmark: 200 scenes to train, 20 to tune, 40 to test"
	@echo "make train DATA=path      train the compact model on SynthRooms, both stages; begun again, it goes on"
	@echo "make test                 set up, lint and run all tests"
	@echo "make test-robot           the tests that need no torch, in an environment without it (PYTHON=python3.12 NUMPY=1.26.4)"
	@echo "make soak                 30 minutes of a camera at its full rate; watches memory and CPU time (SEQUENCE=folder, FRAMES=n)"
	@echo "make chaos                10,000 frames of broken messages, false transforms and clocks that go back (FRAMES=n)"
	@echo "make fuzz                 messages, transforms, maps, models and parameter files, drawn at random"
	@echo "make bench                measure the speed beside others' software, into out/bench.json"
	@echo "make gpu-check            on a machine with a GPU: check what could not be checked without, into out/gpu_check.json"
	@echo "make docs                 build the documentation site into out/site; nothing is fetched but its packages"
	@echo "make lint                 lint only"
	@echo "make clean                remove .venv and everything built"
	@echo "PYTHON=python3.12 chooses the Python to set up with, SGROCC_VENV=folder the place of the environment."

python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: sudo apt install python3, or name another with make PYTHON=..."; exit 1; }

set-up: python
	@$(PYTHON) tools/set_up.py

demo: set-up
	@$(VENV_PYTHON) -m sgrocc_ros.demo $(if $(SEQUENCE),--sequence "$(SEQUENCE)") $(if $(EXPERT),--expert $(EXPERT))

OUT ?= out/synthrooms
synthrooms: python
	@$(PYTHON) tools/set_up.py --synth
	@for split in train val test; do $(VENV_PYTHON) -m sgrocc synth --out "$(OUT)" --split $$split || exit; done
	@$(VENV_PYTHON) -m sgrocc data check "$(OUT)"

DATA ?= out/synthrooms
train: python
	@$(PYTHON) tools/set_up.py --synth --train
	@for stage in image image_full local; do \
		$(VENV_PYTHON) -m sgrocc train --config config/train/compact_$$stage.yaml --data "$(DATA)" || exit; done

soak: set-up
	@$(VENV_PYTHON) -m sgrocc_ros.soak $(if $(SEQUENCE),--sequence "$(SEQUENCE)") $(if $(FRAMES),--frames $(FRAMES))

chaos: set-up
	@$(VENV_PYTHON) -m sgrocc_ros.chaos $(if $(FRAMES),--frames $(FRAMES)) --json out/chaos.json

bench: set-up
	@$(PYTHON) tools/set_up.py --train
	@$(VENV_PYTHON) -m sgrocc bench --json out/bench.json

gpu-check: python
	@$(PYTHON) tools/set_up.py --gpu
	@$(VENV_PYTHON) -m sgrocc gpu-check --json out/gpu_check.json

lint: python
	@$(PYTHON) tools/set_up.py --test
	@$(VENV_PYTHON) -m ruff check .

test: export ROS_PYTHON_CHECK_FIELDS = 1
test: lint
	@$(VENV_PYTHON) -m pytest test -n 2 --dist loadgroup

# What comes from outside, drawn at random, twenty times as often as in the tests.
fuzz: export SGROCC_FUZZ = 20
fuzz: export ROS_PYTHON_CHECK_FIELDS = 1
fuzz: lint
	@$(VENV_PYTHON) -m pytest test -m fuzz -p no:cacheprovider --hypothesis-show-statistics

# One environment for each Python and numpy, beside .venv.
test-robot: export ROS_PYTHON_CHECK_FIELDS = 1
test-robot: SGROCC_VENV = $(CURDIR)/.build/robot-$(notdir $(PYTHON))$(if $(NUMPY),-numpy$(NUMPY))
test-robot: python
	@$(PYTHON) tools/set_up.py --test-robot $(if $(NUMPY),--numpy $(NUMPY))
	@$(VENV_PYTHON) -m pytest test -n 2 --dist loadgroup

docs: export NO_MKDOCS_2_WARNING = 1
docs: set-up
	@$(VENV_PYTHON) -m pip install --quiet --no-deps -r requirements/docs.txt
	@$(VENV_PYTHON) tools/make_reference.py
	@$(VENV_PYTHON) -m mkdocs build --strict
	@echo "out/site/index.html; with its search: python3 -m http.server --directory out/site"

clean:
	rm -rf .venv .build build install log *.egg-info
