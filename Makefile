# What each target does: make help

VERSION ?= $(shell git describe --tags --match 'v*' --dirty 2>/dev/null | tr -cd "A-Za-z0-9.+-" | grep . || echo dev)
COMMIT  ?= $(shell git describe --always --exclude '*' --dirty 2>/dev/null || echo unknown)
PLUGIN  ?= otelmetrics:dev
FUZZTIME ?= 30s

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)

# Every module of this repository, the product's own first.
MODULES := $(patsubst %/,%,$(dir go.mod $(wildcard */go.mod)))

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.NOTPARALLEL: # several targets use one engine

# What is never used and large: grpc's /debug pages, and net/http's HTTP/2 (the
# engine's endpoints speak HTTP/1.1, and gRPC has an HTTP/2 of its own).
# Functions are aligned to 16 bytes, which costs nothing measurable and saves 0.1 MB.
TAGS := grpcnotrace,nethttpomithttp2
GO_BUILD := CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '-s -w -funcalign=16 -X main.version=$(VERSION) -X main.commit=$(COMMIT)'

.PHONY: build
build: ## bin/otelmetricsplugin, a static binary (the default)
	$(GO_BUILD) -o bin/ ./cmd/otelmetricsplugin

.PHONY: plugin-dir
plugin-dir: # build/plugin, what `docker plugin create` takes
	rm -rf build/plugin
	mkdir -p build/plugin/rootfs
	cp config.json build/plugin/
	GOOS=linux $(GO_BUILD) -o build/plugin/rootfs/ ./cmd/otelmetricsplugin

.PHONY: plugin
plugin: build plugin-dir ## the managed plugin $(PLUGIN) in the local engine; replaces a disabled one
	scripts/plugin.sh $(PLUGIN) build/plugin

.PHONY: demo
demo: build plugin-dir ## 20 s of this engine's metrics, as they arrive; leaves nothing behind
	go build -o bin/ ./scripts/servepage
	@scripts/demo.sh

.PHONY: test
test: unit demo-test image e2e ## everything that must pass; needs root and a Docker Engine

.PHONY: unit
unit: ## the product's own tests, with the race detector, and at full size without it; those of bench
	go test -race ./...
	go test -run 'Memory|500000|Small|Allocations' ./internal/delivery ./pkg/translate ./cmd/otelmetricsplugin
	cd bench && go test ./internal/...

.PHONY: e2e
e2e: ## a real engine, a real Collector, real faults; needs root
	cd e2e && go test -count=1 -timeout 30m ./...

.PHONY: demo-test
demo-test: ## make demo from a fresh copy and an empty module cache: with an engine, without, interrupted
	scripts/demo-test.sh

.PHONY: image
image: ## the Dockerfile, built without a registry, and run as a plugin; needs a Docker Engine
	scripts/image-test.sh

.PHONY: fuzz
fuzz: ## every fuzz target, for FUZZTIME=30s each, seeded with Prometheus' own test data too
	@set -e; TEXT_PAGES=$$(go -C e2e list -m -f '{{.Dir}}' github.com/prometheus/prometheus)/model/textparse/testdata; \
	export TEXT_PAGES; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzzminimizetime 100x -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# The bench module is read without the service discovery that its Collector does
# not use: it would take many minutes to compile.
.PHONY: lint
lint: $(GOLANGCI_LINT) ## formatting, vet, static analysis, tidy modules, shell scripts, the tests that documents name
	@set -e; for module in $(MODULES); do \
		echo "lint $$module"; \
		(cd $$module; [ $$module != bench ] || export GOFLAGS=-tags=remove_all_sd; go vet ./... && $(CURDIR)/$(GOLANGCI_LINT) run --allow-parallel-runners ./... && go mod tidy -diff); \
	done
	shellcheck .ci/run scripts/*.sh
	scripts/named-tests.sh

# Built from source by the Go toolchain in use, so that it reads what that writes.
$(GOLANGCI_LINT):
	GOBIN=$(CURDIR)/bin/tools GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv bin/tools/golangci-lint $@

.PHONY: clean
clean: ## removes bin and build
	rm -rf bin build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sed 's/$$(PLUGIN)/$(PLUGIN)/' | expand -t 12

.PHONY: bench
bench: build ## beside the Collector, vmagent and the bridge; writes docs/performance.md; BENCHFLAGS=-quick for 2 minutes
	cd bench && go run ./cmd/bench -program ../bin/otelmetricsplugin $(BENCHFLAGS)

.PHONY: benchcmp
benchcmp: ## Go benchmarks of two commits compared: OLD=commit NEW=commit
	scripts/benchcmp.sh '$(OLD)' '$(or $(NEW),HEAD)'
