GO ?= go
GOLANGCI_LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0

.PHONY: build test demo bench bench-bulk bench-runtime tools check lint

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o imgwrap ./cmd/imgwrap

# All that CI runs. The end-to-end tests build, run and trace real images; what
# takes long is kept in ~/.cache/imgwrap-test (or $IMGWRAP_TEST_CACHE). They run
# side by side, four at a time, since they wait as much as they compute.
test: tools check
	IMGWRAP_TEST_PYTHONS=all $(GO) test -vet=off ./...
	$(GO) test -vet=off -tags e2e -run E2E -count 1 -p 1 -parallel 4 -timeout 40m ./cmd/...

check:
	@files=$$(gofmt -l cmd image layer); test -z "$$files" || { echo "not gofmt-ed: $$files" >&2; exit 1; }
	$(GO) vet -tags e2e ./...

# Wraps a real image, runs it and shows the trace that arrives.
demo: tools
	$(GO) run ./cmd/demo

# What wrapping costs beside other ways: time, memory, requests. Takes half an
# hour, 15 GB of disk, and an otherwise idle machine; see docs/performance.md.
bench: tools
	$(GO) run ./cmd/bench images

# What wrapping many images on a few bases costs, at once and one by one. Takes
# half an hour, and an otherwise idle machine; see docs/performance.md.
bench-bulk: tools
	$(GO) run ./cmd/bench images -parts bulk -rounds 3

# What telemetry costs an application: start, export, load, memory. Takes a
# quarter of an hour, and an otherwise idle machine; see docs/performance.md.
bench-runtime: tools
	$(GO) run ./cmd/bench runtime

tools:
	@sh testdata/images/tools.sh

lint:
	$(GO) run $(GOLANGCI_LINT) run
