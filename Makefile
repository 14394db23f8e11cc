# Everything works from a fresh clone with Python >= 3.10, make and git. Two commands matter: `make try`, `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Tests, training and the model share two cores with whatever else runs: one thread each unless told otherwise.
export OMP_NUM_THREADS ?= 1

.PHONY: help try test install lint bench speed vsix corpus corpus-code heldout heldout-code model model-code linux clean \
	test-editors test-editors-vscode test-editors-nvim test-editors-emacs test-pages evolution

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 14

try: install  ## type into a real file through the real server, and see its ghost text
	@$(BIN)/python examples/try_it.py

test: $(VENV)/.dev-installed  ## install what the tests need, and run them all
	$(BIN)/python -m pytest

test-editors: test-editors-nvim test-editors-emacs test-editors-vscode  ## try the clients in the real editors

# Not part of `test`, which needs no editor. The editors are kept: what is there is not fetched again.
test-editors-nvim: $(VENV)/.dev-installed  ## try the plugin in real Neovims, 0.12 and 0.10, with the shipped model (needs Debian's apt-get)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/editors/get-nvim.sh forky build/editors/nvim-0.12
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tests/editors/get-nvim.sh trixie build/editors/nvim-0.10
	$(BIN)/python -m pytest tests/editors/neovim_cases.py

test-editors-emacs: $(VENV)/.dev-installed  ## try the completion menu in a real Emacs (needs emacs with eglot: Debian's emacs-nox and elpa-eglot)
	$(BIN)/python -m pytest tests/editors/emacs_cases.py

test-pages: $(VENV)/.pages-installed  ## try the explorer's pages in a real headless Chromium (needs one: apt-get install chromium)
	$(BIN)/python -m pytest tests/pages/explorer_cases.py tests/pages/panel_cases.py

install: $(VENV)/.installed  ## leave a working .venv/bin/lsp-charrnn (no torch)

lint: $(VENV)/.dev-installed  ## ruff, and mypy in strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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

vsix:  ## build the VS Code extension, editors/vscode/lsp-charrnn.vsix (needs npm)
	cd editors/vscode && npm ci --no-audit --no-fund && npm run package

# Chromium comes from the system (Debian: chromium and fonts-dejavu-core). WHEELS: what the extension's Install button finds.
EDITORS := $(CURDIR)/build/editors
test-editors-vscode: vsix $(VENV)/.dev-installed  ## try the extension in a real VS Code; pictures go to build/editors (needs npm, Chromium; 800 MB)
	cd editors/vscode && npm test
	bash tests/editors/vscode/get.sh $(EDITORS)/code
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(EDITORS)/wheels .
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt node tests/editors/vscode/trial.mjs $(EDITORS)/code editors/vscode/lsp-charrnn.vsix $(EDITORS)/wheels \
		$(EDITORS)/vscode $(BIN)/lsp-charrnn

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

$(VENV)/.pages-installed: $(VENV)/.dev-installed
	$(PIP) --editable '.[pages]'
	@touch $@
