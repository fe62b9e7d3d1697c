# Everything happens in .venv, which is made once and again when what it depends on changes.
SHELL := bash
PYTHON ?= python3
PY := .venv/bin/python
UNET := .venv/bin/napari-unet
READY := .venv/.ready
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test compat lint screenshots clean system-packages

help: ## say what there is (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## train on synthetic scans for two minutes, segment, evaluate; all of it in demo/
	rm -rf demo
	$(PY) training/prepare_phantoms.py demo/data
	$(UNET) train demo/data --out demo/run --minutes 2
	$(UNET) predict demo/run demo/data/imagesTs --out demo/masks
	$(UNET) evaluate demo/masks demo/data/labelsTs
	@echo
	@echo "Weights:  demo/run/model.safetensors"
	@echo "Report:   demo/run/report.html (open it in a browser); its picture alone: demo/run/report.png"
	@echo "Masks:    $$(ls demo/masks/*.nii.gz | wc -l | tr -d ' ') in demo/masks; see one over its scan in napari:"
	@mask=$$(cd demo/masks && ls *.nii.gz | head -n 1); echo "  $(UNET) view demo/data/imagesTs/$$mask demo/masks/$$mask"

test: system-packages $(READY) ## run the whole suite, in a virtual display where there is one
	@if [ "$$(uname)" != Linux ]; then $(PY) -m pytest $(PYTEST_ARGS); \
	elif command -v xvfb-run >/dev/null; then xvfb-run -a -s "-screen 0 1920x1200x24" $(PY) -m pytest $(PYTEST_ARGS); \
	else QT_QPA_PLATFORM=offscreen $(PY) -m pytest $(PYTEST_ARGS); fi

WITH ?= 'napari[pyside6]' 'pyside6!=6.12.0'
compat: system-packages ## the viewer's tests with another Qt, or WITH="'napari[pyqt6]==0.10.0rc1'", in an environment of their own
	rm -rf build/compat && $(PYTHON) -m venv build/compat
	build/compat/bin/pip install -q -c constraints.txt -e . $(WITH) pytest pytest-qt pytest-timeout pytest-xdist hypothesis
	build/compat/bin/pip list 2>/dev/null | grep -iE "^(napari|pyqt6|pyside6) "
	xvfb-run -a -s "-screen 0 1920x1200x24" build/compat/bin/python -m pytest $(PYTEST_ARGS) tests/viewer

lint: $(READY) ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/mypy

DATA ?= $(NAPARI_UNET_DATA)
screenshots: system-packages $(READY) ## take the pictures of docs/viewer.md and the README anew; DATA=folder of public scans
	home=$$(mktemp -d); XDG_DATA_HOME=$$home xvfb-run -a -s "-screen 0 1920x1200x24" $(PY) tools/screenshots.py "$(DATA)" docs/images; \
	status=$$?; rm -rf $$home; exit $$status

clean: ## remove the demo, builds and caches; the environment stays
	rm -rf demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests training -name __pycache__ -prune -exec rm -rf {} +

system-packages:
	@tools/system-packages.sh

# pip's complaint about optional package locations that are not there is no news; every other line of it is shown.
$(READY): pyproject.toml constraints.txt hatch_build.py
	@[ -x $(PY) ] || { echo "Making .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing into .venv (minutes, the first time)"
	@$(PY) -m pip install -q -c constraints.txt -e '.[test]' 2> >(grep -v "Location '.*' is ignored" >&2)
	@touch $@
