# The two commands of the README, and all the set-up they need on a bare Debian 12:
#   make reproduce   the paper's experiment
#   make test        every check and every test
# Each step says what it does and is done once: packages, virtual environment, guest kernel.

VENV := .venv
PYTHON := /usr/bin/python3
BIN := $(VENV)/bin

# One list of what is installed from Debian; the Vagrant machine uses it too.
PACKAGES := python3-venv build-essential flex bison bc patch xz-utils linux-source-6.1 \
            mininet iproute2 iputils-ping iperf tshark curl

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
MISSING = $(shell for p in $(PACKAGES); do \
            dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done)

.PHONY: help reproduce test setup packages kernel lint long clean

help:
	@echo "make reproduce   re-run the paper's experiment (options: ARGS='--probes 10')"
	@echo "make test        run every check and every test (more: make long)"
	@echo "make setup       only install: packages, virtual environment, guest kernel"

reproduce: setup
	$(BIN)/qntn reproduce --clock virtual $(ARGS)

test: setup lint
	$(BIN)/pytest --require emulation,interop,crash -m "not long" $(ARGS)

long: setup
	$(BIN)/pytest --require emulation,interop,crash -m long $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: packages $(VENV)/ready kernel

packages:
	@missing="$(strip $(MISSING))"; \
	if [ -n "$$missing" ]; then \
	    echo "installing Debian packages: $$missing"; \
	    $(SUDO) apt-get -qq update && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
	        install $$missing > /dev/null; \
	fi

# Mininet is not on PyPI: Debian's package is linked into the virtual environment, and nothing else of the system's.
$(VENV)/ready: pyproject.toml | packages
	@echo "virtual environment: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@ln -sfn /usr/lib/python3/dist-packages/mininet \
	    "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/mininet"
	@touch $@

kernel: $(VENV)/ready
	@$(BIN)/python -m topo.substrates.kernel > /dev/null

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
