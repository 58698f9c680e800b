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

# Other people's programs that tests and benchmarks run against.
PEER_PACKAGES := charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-standard-plugins iperf3 ethtool \
                 wireguard-go wireguard-tools
PEERS := .venv-peers

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
missing = $(strip $(shell for p in $(1); do \
            dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done))
define install
@if [ -n "$(1)" ]; then \
    echo "installing Debian packages: $(1)"; \
    $(SUDO) apt-get -qq update && \
    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $(1) > /dev/null; \
fi
endef

.PHONY: help reproduce test setup packages peer-packages peers kernel lint long clean

help:
	@echo "make reproduce   re-run the paper's experiment (options: ARGS='--probes 10')"
	@echo "make test        run every check and every test (more: make long)"
	@echo "make setup       only install: packages, virtual environment, guest kernel"
	@echo "make peers       install what the benchmarks compare with: strongSwan, wireguard-go, SeQUeNCe"

reproduce: setup
	$(BIN)/qntn reproduce --clock virtual $(ARGS)

test: setup peer-packages lint
	$(BIN)/pytest --require emulation,interop,crash -m "not long" $(ARGS)

long: setup peer-packages
	$(BIN)/pytest --require emulation,interop,crash -m long $(ARGS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: packages $(VENV)/ready kernel

packages:
	$(call install,$(call missing,$(PACKAGES)))

# Debian starts strongSwan's daemon when it installs it: nobody here asked for that.
peer-packages:
	@$(eval NEW := $(call missing,$(PEER_PACKAGES)))
	$(call install,$(NEW))
	@case " $(NEW) " in *" charon-systemd "*) \
	    $(SUDO) systemctl disable --now --quiet strongswan.service 2> /dev/null || true ;; esac

# SeQUeNCe, the peer of `qntn bench bb84`, brings all of Jupyter: it stays out of the project's own environment.
peers: peer-packages $(PEERS)/ready

$(PEERS)/ready:
	@echo "peers' virtual environment: $(PEERS)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/pip install --quiet --disable-pip-version-check 'sequence>=0.8'
	@touch $@

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
	rm -rf $(VENV) $(PEERS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
