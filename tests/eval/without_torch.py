"""Run a command in a process of its own that must not load torch."""

from __future__ import annotations

import subprocess
import sys


def without_torch(*arguments: object) -> None:
    """Run a command in a process of its own; fails where it loads torch or transformers."""
    code = (
        "import sys\nfrom polyrefuse_eval.cli.main import eval_group\n"
        "eval_group.main(sys.argv[1:], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'heavy'\n"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
