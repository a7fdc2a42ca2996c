"""Tiny models without a network; one thread, since two on busy cores can be twenty times slower."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("MPLBACKEND", "Agg")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "benchmarks")]

torch = pytest.importorskip("torch", reason="the eval extra is not installed")
pytest.importorskip("transformers", reason="the eval extra is not installed")
torch.set_num_threads(1)
