# The two commands of the README, and what they need. Everything else is plain cargo.

.PHONY: demo test install install-built uninstall setup peers llama-cpp slurm advisories help

# Where `make install` puts the programs: $(PREFIX)/bin.
PREFIX ?= $(HOME)/.local
PROGRAMS := deltafront deltafront-train deltafront-profile
BUILT ?= $(or $(CARGO_TARGET_DIR),target)/release
BIN = $(PREFIX)/bin

help:
	@echo 'make demo    set up, build, and search real English text for some minutes (CORPUS=path: your own text)'
	@echo 'make test    set up, build, and run every test'
	@echo 'make install   put the programs into ~/.local/bin (PREFIX=path: another place); make uninstall takes them away'
	@echo 'make peers   install transformers and others in your cache folder: then make test loads exports with them, too'
	@echo 'make llama-cpp   compile llama.cpp into the same Python, for exports to GGUF: five to ten minutes'
	@echo 'make slurm   install Slurm from Debian, as root: then make test runs campaigns through a cluster of one node, too'
	@echo 'make advisories   are there known faults in what Cargo.lock names? Needs cargo-audit and the network'
	@echo 'make setup   only the set-up: libtorch into your cache folder; then plain cargo works'

setup:
	@python3 tools/setup.py libtorch

# libtorch stays in the cache folder of the user: its place is written into the trainer, which finds it wherever it is started.
install: setup
	@[ ! -e /proc/driver/nvidia ] || python3 tools/setup.py nvrtc
	cargo build --release --workspace --bins
	@$(MAKE) --no-print-directory install-built

install-built:
	@install -d "$(BIN)"
	@install -m 755 $(PROGRAMS:%="$(BUILT)/%") "$(BIN)"
	@bin=$$(cd "$(BIN)" && pwd) && cd / && for program in $(PROGRAMS); do env -i "$$bin/$$program" --version || exit 1; done; \
	echo "installed in $$bin; deltafront doctor says what this machine can do"; \
	case ":$$PATH:" in *":$$bin:"*) ;; *) echo "your shell does not look there: export PATH=\"$$bin:\$$PATH\"" ;; esac

uninstall:
	rm -f $(PROGRAMS:%="$(BIN)/%")
	@echo "left: campaigns where you made them, and $${XDG_CACHE_HOME:-$$HOME/.cache}/deltafront (libtorch, which other checkouts share)"

# The software that exports are tested by. Without it their tests say what they skip.
peers:
	@python3 tools/setup.py peers

# Not a step of .ci/run, for its minutes.
llama-cpp:
	@python3 tools/setup.py llama-cpp

# The cluster of tui/tests/it/program/cluster.rs. Without it its tests say that they are skipped.
slurm:
	apt-get install -y --no-install-recommends slurm-wlm munge

# Another corpus is another campaign, in a folder of its own; all of them share one database.
demo: setup
	@corpus="$(CORPUS)"; folder=demo/$$(basename "$${corpus:-speeches}" | sed 's/\.[^.]*$$//'); \
	[ -n "$$corpus" ] || corpus=$$(python3 tools/setup.py corpus) || exit 1; \
	cargo build --release --workspace --bins || exit 1; \
	[ -f "$$folder/campaign.toml" ] || target/release/deltafront init "$$folder/campaign.toml" --corpus "$$corpus" || exit 1; \
	exec target/release/deltafront run "$$folder/campaign.toml" --db demo/deltafront.db

test: setup
	cargo test --workspace

# Not a step of .ci/run, which works without a network, and whose verdict on a commit must not change with the day.
# ADVISORIES=path: a copy of the RustSec database, in place of fetching it.
advisories:
	@cargo audit --version >/dev/null 2>&1 || { echo 'cargo-audit is missing: cargo install cargo-audit --locked' >&2; exit 1; }
	cargo audit --deny warnings $(if $(ADVISORIES),--db "$(ADVISORIES)" --no-fetch)
