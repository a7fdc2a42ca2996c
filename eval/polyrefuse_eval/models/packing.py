"""How prompts of different lengths are dealt to rows and rows to batches, so that little is padded."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

PAIRS_PER_TOKEN = 2.4
"""One token costs a layer's matrices as much as this times the model's width pairs of tokens cost its
attention. By count it is 6 (12 d² weights, 2 d multiplications a pair), but attention does less than half as
many in a second; measured on 2 cores at a width of 512, where rows of 64 to 192 tokens cost the same behind
a prefix of 2, and behind one of 35 rows of 256 cost a tenth less than rows of 128."""


def best_row_length(prefix: int, model_width: int) -> int:
    """Return how many tokens a row is best long that begins with a shared prefix of `prefix` tokens.

    n tokens of prompts in rows of own length s cost n/s rows, each of them p + s tokens in the matrices
    and (p + s)² pairs in the attention, of which a token is worth r: least at s² = p² + r·p.
    """
    pairs = PAIRS_PER_TOKEN * model_width
    return prefix + round(math.sqrt(prefix**2 + pairs * prefix))


def divide(widths: Sequence[int], budget: int) -> list[list[int]]:
    """Return rows of `widths` tokens (indices) in rectangles of even size, none above `budget` tokens if
    that can be.

    Rows of like width stand together, so that little is padded.
    """
    total = sum(widths)
    parts = max(1, -(-total // max(1, budget)))
    target = min(budget, -(-total // parts) + max(widths) // 2)
    rectangles: list[list[int]] = [[]]
    for index in sorted(range(len(widths)), key=lambda index: (widths[index], index)):
        if rectangles[-1] and widths[index] * (len(rectangles[-1]) + 1) > target:
            rectangles.append([])
        rectangles[-1].append(index)
    return rectangles


def even_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Deal prompts (indices) to rows of about `budget` tokens, the longest first, each to the shortest row.

    Long and short ones share rows: that evens them out, and `exchange` does what is left.
    """
    count = max(1, min(len(lengths), round(sum(lengths) / max(budget, 1))))
    rows: list[list[int]] = [[] for _ in range(count)]
    used = [(0, row) for row in range(count)]
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        tokens, row = heapq.heappop(used)
        rows[row].append(index)
        heapq.heappush(used, (tokens + lengths[index], row))
    exchange(rows, lengths)
    return rows


def exchange(rows: list[list[int]], lengths: Sequence[int]) -> None:
    """Shorten the longest row as long as a prompt of it can go to the shortest row, or change places with
    one there: a batch is as wide as its longest row, and the rest of it is padding."""
    used = [sum(lengths[index] for index in row) for row in rows]
    while True:
        longest, shortest = used.index(max(used)), used.index(min(used))
        gap = used[longest] - used[shortest]
        # What the longest row gives away less what it gets: of use between 0 and the gap, best at its half.
        moves = [
            (abs(2 * given - gap), given, out, back)
            for out in rows[longest]
            for back in (None, *rows[shortest])
            if 0 < (given := lengths[out] - (0 if back is None else lengths[back])) < gap
        ]
        if not moves:
            return
        _, given, out, back = min(moves, key=lambda move: move[:2])
        rows[longest].remove(out)
        rows[shortest].append(out)
        if back is not None:
            rows[shortest].remove(back)
            rows[longest].append(back)
        used[longest] -= given
        used[shortest] += given
