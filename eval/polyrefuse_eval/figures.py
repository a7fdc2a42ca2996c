"""What all figures share: colours that colour-blind readers tell apart, a caption, PNG and SVG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from polyrefuse_data.core.output_folder import write_together
from polyrefuse_eval.errors import require

VERMILION, BLUE, GREY = "#D55E00", "#0072B2", "#595959"
"""Okabe and Ito (2008): told apart with any colour vision, and by lightness in print."""

RATE_INTERVAL = "bars: 95 % Wilson intervals"


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of `width` x `height` inches and its axes [rows, columns]."""
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def explain(figure: Any, title: str, caption: str) -> None:
    """Write above a figure what to see, and below that line model, data, n and interval."""
    lines = [line for line in (title, caption) if line]
    if lines:
        figure.suptitle("\n".join(lines), fontsize=10)


def shared_legend(figure: Any, axes: Any) -> None:
    """Put one legend for all `axes` beneath the panels, each label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=2,
            fontsize=8,
            frameon=False,
        )


def save_figure(figure: Any, path: Path, dpi: int = 120) -> Path:
    """Write `figure` to `path` in the format of its ending, and as SVG beside a PNG; return `path`."""
    write_together(path.parent, figure_files(figure, path.name, dpi))
    return path


def figure_files(figure: Any, name: str, dpi: int = 120) -> dict[str, bytes]:
    """Return `figure` as the file `name`, in the format of its ending, and as SVG beside a PNG.

    Without dates and versions in the files, the same numbers give the same bytes.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names are from files, and a "$" in one is no formula
    stem, _, ending = name.rpartition(".")
    files = {}
    with rc_context({"svg.hashsalt": "polyrefuse"}):
        for form in dict.fromkeys((ending, "svg") if ending == "png" else (ending,)):
            metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
            if form == "pdf":
                metadata = {"CreationDate": None, "Creator": None, "Producer": None}
            content = io.BytesIO()
            figure.savefig(content, format=form, dpi=dpi, metadata=metadata)
            files[f"{stem}.{form}"] = content.getvalue()
    return files
