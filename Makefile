# The two commands of the README, and what they need. Everything else is plain cargo.

.PHONY: demo test setup help

help:
	@echo 'make demo    set up, build, and search real English text for some minutes (CORPUS=path: your own text)'
	@echo 'make test    set up, build, and run every test'
	@echo 'make setup   only the set-up: libtorch into your cache folder; then plain cargo works'

setup:
	@python3 tools/setup.py libtorch

# Another corpus is another campaign, in a folder of its own; all of them share one database.
demo: setup
	@corpus="$(CORPUS)"; folder=demo/$$(basename "$${corpus:-speeches}" | sed 's/\.[^.]*$$//'); \
	[ -n "$$corpus" ] || corpus=$$(python3 tools/setup.py corpus) || exit 1; \
	cargo build --release --workspace --bins || exit 1; \
	[ -f "$$folder/campaign.toml" ] || target/release/deltafront init "$$folder/campaign.toml" --corpus "$$corpus" || exit 1; \
	exec target/release/deltafront run "$$folder/campaign.toml" --db demo/deltafront.db

test: setup
	cargo test --workspace
