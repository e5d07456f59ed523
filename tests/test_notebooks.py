"""Every notebook runs from top to bottom, in the folder it lies in, and shows pictures that were computed.

Notebooks are committed with their outputs, so that they can be read without being run. After a change:
`.venv/bin/jupyter execute --inplace notebooks/NAME.ipynb`.
"""

import pytest
from folders import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 2_000_000  # bytes, outputs included: a page that loads at once

nbformat = pytest.importorskip("nbformat")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path):
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    # Whatever kernel it was saved with, it runs on the Python that runs the tests.
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(cwd=str(FOLDER))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].cell_type == "markdown", "a notebook begins with its title and what it tells"
    assert all(cell.execution_count for cell in code), "not run as a whole: jupyter execute --inplace"
    assert any(cell.outputs for cell in code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert path.stat().st_size <= LARGEST
