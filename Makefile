# make demo   everything from made-up rooms to a labelled scan, on the CPU, in minutes
# make test   the test suite
# make lint   style
# make lock   pin the newest versions again

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch: a tenth of the size of the CUDA build. For a GPU: make TORCH_LINKS= demo
TORCH_LINKS ?= https://download.pytorch.org/whl/cpu/torch/
EXTRAS := text,formats,logging,test

.PHONY: demo test lint lock clean

demo: $(VENV)/.ready
	$(BIN)/lground demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not gpu"

lint: $(VENV)/.ready
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(if $(TORCH_LINKS),--retries 2 --find-links $(TORCH_LINKS)) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	touch $@

lock:
	$(BIN)/python -m pip install --quiet uv
	echo "torch==2.13.0" > $(VENV)/torch.txt
	{ echo "# Pinned versions of everything \`make\` installs, for Python 3.10 to 3.13. Made by \`make lock\`."; \
	  $(BIN)/uv pip compile pyproject.toml --constraint $(VENV)/torch.txt --universal --python-version 3.10 --all-extras \
	    --no-header --no-annotate --quiet | grep -v '^nvidia-\|^cuda-'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist src/*.egg-info
