# All that a newcomer types: `make run` and `make test`. Rust and Node are assumed; the rest is installed or built.

.DEFAULT_GOAL := help
.PHONY: help run test lint fmt setup bite chaos

STEP := tests/step.sh

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

run: ## Build and start the whole platform (ARGS="--port 0 --data /tmp/other")
	cargo run --release -p notifyx -- up $(ARGS)

test: setup lint ## Check everything: formatting, lints, tests, documentation, the JavaScript clients
	@$(STEP) "tests" cargo test --workspace
	@$(STEP) "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	@if [ -f tests/js/package.json ]; then $(STEP) "tests of JavaScript clients" npm --prefix tests/js test; fi

lint: ## Check formatting and lints
	@$(STEP) "formatting" cargo fmt --all --check
	@$(STEP) "lints" cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format the code
	cargo fmt --all

bite: setup ## Break one rule after the other, of two-phase commit and of what is scheduled, in a copy, and see that tests notice
	@tests/bite.sh

chaos: setup ## Publish N=10000 notifications, and schedule N events, through random faults, in both forms (SEED=… repeats a run)
	NOTIFYX_CHAOS_NOTIFICATIONS=$(or $(N),10000) NOTIFYX_CHAOS_EVENTS=$(or $(N),10000) NOTIFYX_CHAOS_SEED=$(SEED) \
		cargo test -p notifyx --test chaos -- --nocapture --test-threads=1

setup: ## Install what the tests need: PostgreSQL's server, packages of the JavaScript clients
	@$(STEP) "setup" tests/setup.sh
