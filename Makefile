# The commands people type. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
CLUSTER_CLI := hack/local-cluster/cluster
HELM := .cluster/bin/helm
KUSTOMIZE := .cluster/bin/kustomize
# As in the images' Python path: one folder for each program.
SOURCES := contracts/src operator/src gateway/src engine-builder/src kubectl-rr/src

.PHONY: help
help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- the demo ---------------------------------------------------------------------------------

.PHONY: demo demo-url demo-down
demo: $(VENV)/.ready ## From an empty machine to ranked answers on a real cluster.
	@$(PY) hack/demo/demo.py run

demo-url: $(VENV)/.ready ## Print the address of the demo's ranking API.
	@$(PY) hack/demo/demo.py url

demo-down: $(VENV)/.ready ## Remove the demo's service and operator; the cluster stays.
	@$(PY) hack/demo/demo.py down

# --- cluster and images -----------------------------------------------------------------------

.PHONY: cluster cluster-down cluster-status images
cluster: ## A Kubernetes for development: local node, kind, or CLUSTER=current.
	@$(CLUSTER_CLI) up

cluster-down: ## Stop it and leave nothing behind but .cluster/.
	@$(CLUSTER_CLI) down

cluster-status: ## What of the cluster runs.
	@$(CLUSTER_CLI) status

images: ## Build all images and bring them into the cluster.
	@hack/images/build

# --- checks -----------------------------------------------------------------------------------

$(VENV)/.ready: requirements/dev.txt requirements/uv.txt
	@echo "venv: installing the pinned development tools"
	@python3 -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements/uv.txt
	@$(VENV)/bin/uv pip install -q --python $(PY) --require-hashes --no-deps -r requirements/dev.txt
	@printf '%s\n' $(foreach dir,$(SOURCES),$(CURDIR)/$(dir)) > "$$($(PY) -c 'import site; print(site.getsitepackages()[0])')/reranker-operator.pth"
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready ## The Python environment of tests and tools, in .venv.

.PHONY: test lint test-rules test-conformance test-unit test-reconcile test-builder test-cluster test-autoscalers test-e2e test-long test-nightly
test: ## Everything: lint, unit, reconcile, cluster, e2e.
	@hack/test

lint: $(VENV)/.ready ## ruff, mypy, import-linter, charts, kustomize, generated files.
	@hack/lint

build/conformance/.ready: requirements/conformance.txt $(VENV)/.ready
	@echo "build/conformance: installing the pinned rerank clients"
	@python3 -m venv --clear build/conformance
	@$(VENV)/bin/uv pip install -q --python build/conformance/bin/python --require-hashes --no-deps -r requirements/conformance.txt
	@touch $@

test-conformance: $(VENV)/.ready ## The rerank clients that people use, against the real gateway.
	@$(PY) -m pytest tests/conformance

test-rules: ## The alert rules, with the real promtool.
	@hack/test-rules

test-unit: $(VENV)/.ready ## Pure tests, seconds.
	@$(PY) -m pytest -m "not builder" tests/unit

test-reconcile: $(VENV)/.ready ## The loop over a fake cluster.
	@$(PY) -m pytest tests/reconcile

test-builder: ## The builder's golden tests, inside its image.
	@engine-builder/test-in-image -q -m builder tests/unit/builder

test-cluster: $(VENV)/.ready ## CRDs, admission and RBAC on the cluster's API server.
	@$(PY) -m pytest tests/cluster

test-autoscalers: $(VENV)/.ready ## Real KEDA, and Prometheus with its adapter; builds KEDA once, many minutes.
	@RERANKER_CLUSTER_BIN=$(CURDIR)/.cluster/bin $(CLUSTER_CLI) binaries
	@RERANKER_CLUSTER_BIN=$(CURDIR)/.cluster/bin $(CLUSTER_CLI) keda
	@RERANKER_CLUSTER_BIN=$(CURDIR)/.cluster/bin $(PY) -m pytest tests/autoscalers

test-e2e: $(VENV)/.ready ## Real pods on the cluster.
	@$(PY) -m pytest tests/e2e

test-long: $(VENV)/.ready ## Real pods under twenty minutes of changing load; half an hour.
	@$(PY) -m pytest -s -v tests/e2e/long

test-nightly: $(VENV)/.ready ## Ten thousand stories for the operator; hours.
	@HYPOTHESIS_PROFILE=nightly $(PY) -m pytest tests/reconcile/test_properties.py

.PHONY: test-cluster-bringup bench bench-operator bench-autoscale fuzz bench-serving
test-cluster-bringup: ## The local cluster itself: two side by side, power loss, a clean end.
	@hack/local-cluster/selftest

bench: $(VENV)/.ready ## Load on the running demo's ranking API; BENCH=--json gives JSON.
	@$(PY) bench/ranking.py "$$($(PY) hack/demo/demo.py url | sed 's#/v1/ranking##')" $(BENCH)

bench-serving: $(VENV)/.ready ## Serving beside the engine bare and other rerank servers; needs the images.
	@bench/serving/measure build/bench-serving $(BENCH)

fuzz: $(VENV)/.ready ## A hundred thousand malformed requests against a gateway of its own; BENCH="--requests N".
	@$(PY) bench/fuzz.py $(BENCH)

bench-autoscale: $(VENV)/.ready ## Autoscalers on the same loads, simulated; BENCH="--only day".
	@$(PY) bench/autoscale/run.py --picture docs/autoscaling.svg $(BENCH)

bench-operator: $(VENV)/.ready ## The operator with a thousand services on a real control plane.
	@RERANKER_CLUSTER_BIN=$(CURDIR)/.cluster/bin $(CLUSTER_CLI) binaries
	@$(PY) bench/operator/run.py $(BENCH)

.PHONY: format
format: $(VENV)/.ready ## Format the Python code.
	@$(VENV)/bin/ruff format -q $(SOURCES) tests
	@$(VENV)/bin/ruff check -q --fix $(SOURCES) tests

# --- generated files --------------------------------------------------------------------------

.PHONY: crds manifests dashboard lock
crds: $(VENV)/.ready ## Write crds/ and the chart's copy from the API models.
	@$(PY) -m reranker_operator.api.crd crds charts/reranker-operator-crds/templates

manifests: crds ## Render manifests/base from the chart.
	@hack/render-manifests > manifests/base/operator.yaml

dashboard: $(VENV)/.ready ## Write the chart's Grafana dashboard.
	@$(PY) hack/dashboards/generate.py charts/reranker-operator/dashboards/reranker-operator.json

lock: $(VENV)/.ready ## Pin all dependencies anew, with hashes.
	@hack/lock
