"""Run commands in a process of its own that must not load torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

CODE = """
import json, sys
from polyrefuse_eval.cli.main import eval_group
for command in json.loads(sys.argv[1]):
    eval_group.main(command, standalone_mode=False)
    heavy = {"torch", "transformers"} & set(sys.modules)
    assert not heavy, f"{command} loads {heavy}"
"""


def without_torch(*commands: Sequence[object]) -> None:
    """Run `polyrefuse eval COMMAND` for each of `commands`; fail where one loads torch or transformers."""
    arguments = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", CODE, arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
