"""What importing costs, and what it needs."""

import subprocess
import sys

import lground

BLOCK = """
import importlib.abc, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("not installed: " + name)
sys.meta_path.insert(0, Wall())
"""
DEPENDENCIES = (
    "scipy",
    "safetensors",
    "plyfile",
    "accelerate",
    "yaml",
    "matplotlib",
    "rich",
    "typer",
    "transformers",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_nothing_heavy():
    heavy = ("torch", "scipy", "matplotlib", "accelerate", "transformers", "plyfile")
    assert run(f"import lground, sys; print([m for m in {heavy!r} if m in sys.modules])").strip() == "[]"


def test_the_command_line_starts_without_torch():
    assert run("import lground.cli, sys; print('torch' in sys.modules)").strip() == "False"


def test_sparse_and_models_need_torch_and_numpy_alone():
    wall = BLOCK.format(blocked=DEPENDENCIES)
    code = "import lground as lg; lg.sparse.SparseConv3d(1, 1); print(lg.models.build('Res16UNet14A') is not None)"
    assert run(wall + code).strip() == "True"


def test_every_public_name_resolves():
    for name in lground.__all__:
        assert getattr(lground, name) is not None
