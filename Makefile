# `make` alone lists the targets. Everything made here is below .venv/ and .cache/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# Options for pytest: make test-unit PYTEST="-k mesh -x"
PYTEST ?=

BIN := .venv/bin
export PYTHON
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/local/sbin:/usr/sbin:/sbin
# Tests and tools of Ansible keep what they cache here; ControlPersist sockets stay in ~/.ansible/cp, whose path is short enough.
CACHE_HOME := ANSIBLE_HOME=$(CURDIR)/.cache/ansible XDG_CACHE_HOME=$(CURDIR)/.cache/xdg
PYTEST_RUN = $(CACHE_HOME) $(BIN)/python -m pytest -q -o cache_dir=.cache/pytest --no-skips $(PYTEST)
# Half of the time of these is waiting.
PYTEST_CLOUD = $(PYTEST_RUN) --numprocesses=2 --dist=loadfile --no-loadscope-reorder tests/cloud

# The scenarios are at the collection's top level, which Molecule finds only when told. It keeps one date for all scenarios that share
# their state, and warns if the files differ in theirs.
MOLECULE = rm -rf .cache/molecule && touch -r Makefile molecule/*/molecule.yml && \
	PYTEST_ADDOPTS='--no-skips $(PYTEST)' MOLECULE_COMMAND_BORDERS=false MOLECULE_GLOB='molecule/*/molecule.yml' ANSIBLE_HOME=$(CURDIR)/.cache/molecule $(BIN)/molecule
LONG_SCENARIOS := \
	debian_13_runs_an_mpi_job \
	a_node_joins_and_leaves \
	slurm_survives_faults \
	backup_controller_takes_over \
	optional_slurm_parts_work \
	jobs_outlive_operations \
	mpi_runs_outlive_nodes \
	no_internet_at_all \
	k3s_is_upgraded_and_restored

# Unit tests that want libvirt's library, with its own test driver: a part of test-integration.
LIBVIRT_TESTS := tests/unit/plugins/inventory/test_libvirt.py $(wildcard tests/unit/plugins/module_utils/_providers/test_libvirt*.py) \
	tests/unit/plugins/module_utils/_providers/test_seed.py

# Elastic nodes and k3s have parts of their own.
ELASTIC_SCENARIO := nodes_come_and_go
K3S_SCENARIO := k3s_keeps_its_quorum

# So have bundles, mirror and registry, and notebooks.
AIRGAP_SCENARIO := nodes_install_from_a_bundle
NOTEBOOKS_SCENARIO := notebooks_run_on_slurm

# Two lanes, as two cores run them: what keeps a processor busy (an emulated machine does, too), and what makes containers and mostly
# waits for them.
PARTS_OF_CODE := test-lint test-contracts test-unit test-sanity test-cloud test-integration test-vm
PARTS_OF_MACHINES := test-elastic test-airgap test-k3s test-jupyterhub test-molecule

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##@ Use it

.PHONY: demo demo-destroy clean-images
demo: setup engine ## a cluster of four nodes on this machine, and an MPI job on it
	@tools/system-packages ssh=openssh-client '?mmdebstrap=mmdebstrap'
	@tools/demo up

demo-destroy: setup engine ## remove everything that `make demo` made, except for the cached image
	@tools/demo destroy

clean-images: engine ## remove the images that were built for the demo and the tests
	@tools/demo clean-images

.PHONY: new-site
new-site: setup ## a directory of your own for a new cluster: make new-site DIR=... [SOURCE=static|docker|aws|alicloud]
	@$(BIN)/ansible-playbook -i localhost, turnkey.hpc.new -e '{"dir": "$(DIR)", "source": "$(or $(SOURCE),static)"}'

.PHONY: setup setup-dev engine image
setup: ## virtual environment .venv with the pinned requirements; quick when nothing changed
	@tools/setup runtime

setup-dev: ## the same with what the tests need
	@tools/setup dev

engine: ## install and start a Docker engine if none answers
	@tools/docker-engine

image: setup engine ## build the golden image of the demo, unless it is there
	@tools/system-packages ssh=openssh-client '?mmdebstrap=mmdebstrap'
	$(BIN)/ansible-playbook -i inventories/demo playbooks/image.yml

##@ Test it

.PHONY: test test-full
test: setup-dev engine image ## all tests, with the time of each part; all parts run even if one fails
	@MAKE="$(MAKE)" $(PYTHON) tools/test-parts "$(PARTS_OF_CODE)" "$(PARTS_OF_MACHINES)"

test-full: setup-dev engine image ## `make test` and what is too long for every change
	@MAKE="$(MAKE)" $(PYTHON) tools/test-parts "$(PARTS_OF_CODE) test-pythons test-cloud-long test-vm-long" "$(PARTS_OF_MACHINES) test-elastic-long test-airgap-long test-jupyterhub-long test-molecule-long"

.PHONY: test-lint test-contracts test-unit test-sanity test-integration test-cloud test-molecule test-mpi-service test-molecule-long test-pythons
test-lint: setup-dev ## yamllint, ansible-lint (production), ruff, mypy, antsibull-changelog
	@$(CACHE_HOME) tools/lint

test-contracts: setup-dev ## the rules of the house, over the whole tree
	@$(PYTEST_RUN) tests/contracts

test-unit: setup-dev ## unit tests
	@tools/system-packages gpg=gpg gpg-agent=gpg-agent htpasswd=apache2-utils mke2fs=e2fsprogs qemu-img=qemu-utils
	@$(PYTEST_RUN) tests/unit $(LIBVIRT_TESTS:%=--ignore=%)

test-sanity: setup-dev ## ansible-test sanity and ansible-test units
	@failed=0; for command in sanity units; do tools/sanity $$command || failed=1; done; exit $$failed

test-integration: setup-dev setup-vm engine image ## the collection's tarball, plugins, programs, providers, Slurm's daemons; without a cluster
	@tools/system-packages ssh-keygen=openssh-client cpio=cpio mke2fs=e2fsprogs qemu-img=qemu-utils mcopy=mtools sfdisk=fdisk
	@$(PYTEST_RUN) tests/integration $(LIBVIRT_TESTS)

test-cloud: setup-dev engine image ## clusters in clouds that are stand-ins, with what goes wrong in clouds
	@tools/system-packages ssh=openssh-client
	@$(PYTEST_CLOUD)

.PHONY: test-elastic test-elastic-long
test-elastic: setup-dev engine ## elastic nodes: series of faults in simulated time, and containers that come and go
	@$(PYTEST_RUN) tests/elastic
	@tools/system-packages ssh=openssh-client '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test --scenario-name $(ELASTIC_SCENARIO)

test-elastic-long: setup-dev engine ## the same with 1,000 series, sixteen nodes at once, faults that take minutes, and Debian 13
	@TURNKEY_LONG_TESTS=1 $(MAKE) test-elastic
	@TURNKEY_DEBIAN_RELEASE=13 $(MOLECULE) test --scenario-name $(ELASTIC_SCENARIO)

.PHONY: test-airgap test-airgap-long
test-airgap: setup-dev engine ## bare nodes without a way out that install from a bundle, its mirror, the container registry
	@tools/system-packages ssh=openssh-client gpg=gpg gpg-agent=gpg-agent skopeo=skopeo nft=nftables '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test --scenario-name $(AIRGAP_SCENARIO)

test-airgap-long: ## the same on Debian 13
	@TURNKEY_DEBIAN_RELEASE=13 $(MAKE) test-airgap

.PHONY: test-k3s
test-k3s: setup-dev engine ## k3s, for which a stand-in stands: three servers and an agent, joined, broken and taken off
	@tools/system-packages ssh=openssh-client '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test --scenario-name $(K3S_SCENARIO)

.PHONY: test-jupyterhub test-jupyterhub-long test-jupyterhub-chart
test-jupyterhub: setup-dev engine ## notebooks as jobs of Slurm, with a browser; pictures go to .cache/screenshots
	@tools/system-packages ssh=openssh-client '?mmdebstrap=mmdebstrap' chromedriver=chromium-driver certutil=libnss3-tools
	@$(MOLECULE) test --scenario-name $(NOTEBOOKS_SCENARIO)

test-jupyterhub-long: ## the same with notebooks on one host, idle ones, upgrades, nodes that are lost, limits
	@TURNKEY_LONG_TESTS=1 $(MAKE) test-jupyterhub

test-jupyterhub-chart: setup-dev ## mode k3s against a chart of Zero to JupyterHub, by helm, which you have: CHART=...
	@test -e "$(CHART)" || { echo "Error: CHART=... must be the chart's directory or archive (docs/jupyterhub.md)" >&2; exit 1; }
	@command -v helm >/dev/null || { echo "Error: there is no helm in PATH (docs/jupyterhub.md says where from)" >&2; exit 1; }
	@TURNKEY_JUPYTERHUB_CHART=$(abspath $(CHART)) $(PYTEST_RUN) tests/integration/test_jupyterhub_chart.py

.PHONY: test-cloud-long live-test-aws live-test-alicloud
test-cloud-long: setup-dev ## 200 series of faults for each cloud, and runs that are killed after every single call
	@TURNKEY_LONG_TESTS=1 $(PYTEST_CLOUD) -k "whatever or killed or fault or built or minutes"

live-test-aws: setup-dev ## a small cluster in your account at AWS, made and removed; costs less than one dollar: TURNKEY_LIVE_SSH_FROM=...
	@TURNKEY_LIVE_AWS=1 $(PYTEST_RUN) -s tests/live/test_aws_live.py

live-test-alicloud: setup-dev ## the same at Alibaba Cloud
	@TURNKEY_LIVE_ALICLOUD=1 $(PYTEST_RUN) -s tests/live/test_alicloud_live.py

VM_LONG_TESTS := tests/vm/test_instant_nodes.py tests/vm/test_images.py tests/vm/test_hypervisors.py tests/vm/test_cloud_image.py

.PHONY: setup-vm libvirt test-vm test-vm-long
setup-vm:
	@tools/setup vm

libvirt:
	@tools/libvirt-engine

test-vm: setup-vm engine libvirt image ## virtual machines: a laboratory of two with NFS, cgroups and boots of their own, and elastic ones
	@tools/system-packages ssh=openssh-client mke2fs=e2fsprogs '?mmdebstrap=mmdebstrap'
	@$(PYTEST_RUN) tests/vm $(VM_LONG_TESTS:%=--ignore=%)

test-vm-long: setup-vm engine libvirt ## instant nodes, machines that start by EFI, images made of images and of a cloud image, two hypervisors
	@tools/system-packages ssh=openssh-client mke2fs=e2fsprogs mcopy=mtools sfdisk=fdisk mmdebstrap=mmdebstrap 'syslinux=syslinux syslinux-common'
	@$(PYTEST_RUN) $(VM_LONG_TESTS)

test-molecule: setup-dev engine ## the scenarios: clusters in Docker, from bare nodes to MPI jobs and back
	@tools/system-packages ssh=openssh-client nfs-cp=libnfs-utils '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test --all $(patsubst %,--exclude %,$(LONG_SCENARIOS) $(ELASTIC_SCENARIO) $(AIRGAP_SCENARIO) $(K3S_SCENARIO) $(NOTEBOOKS_SCENARIO))

test-mpi-service: setup-dev engine ## the scenario of `git push`, which is one of test-molecule, alone
	@tools/system-packages ssh=openssh-client git=git '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test --scenario-name git_push_runs_mpi

test-molecule-long: setup-dev engine ## the scenarios that are too long for every change
	@tools/system-packages ssh=openssh-client gpg=gpg gpg-agent=gpg-agent skopeo=skopeo nft=nftables busybox=busybox-static '?mmdebstrap=mmdebstrap'
	@$(MOLECULE) test $(LONG_SCENARIOS:%=--scenario-name %)

test-pythons: setup-dev ## sanity and units on the oldest and newest Python of a target, where they exist here
	@failed=0; for command in sanity units; do tools/sanity $$command 3.9 3.13 || failed=1; done; exit $$failed

##@ Work on it

.PHONY: docs build clean
docs: setup ## write the inputs of the roles into their READMEs
	@$(BIN)/python tools/role-docs

build: setup ## the collection's tarball, in .cache/build
	@mkdir -p .cache/build
	@$(CACHE_HOME) $(BIN)/ansible-galaxy collection build --force --output-path .cache/build

clean: ## remove .venv and .cache (see demo-destroy and clean-images for the rest)
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache
