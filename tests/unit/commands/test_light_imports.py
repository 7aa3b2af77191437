"""`treepo --help` and `import treepo` stay light: they must work, at once, without an engine."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "vllm", "transformers", "fastapi", "numpy.random", "openai", "rich")

CHECK = """
import sys
try:
    {statement}
except SystemExit:
    pass
heavy = [name for name in {heavy} if name in sys.modules]
sys.exit(" ".join(heavy) or 0)
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import treepo",
        "from treepo import cli; cli.main(['--help'])",
        "from treepo import cli; cli.main(['--version'])",
        "import treepo.commands.serve",
        "import treepo.local.embedded",
        "import treepo_server.launch.vllm_serve",
    ],
)
def test_loads_nothing_heavy(statement):
    code = CHECK.format(statement=statement, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
