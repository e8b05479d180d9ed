"""A look into a fresh interpreter."""

import subprocess
import sys


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that are loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())
