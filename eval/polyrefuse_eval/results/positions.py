"""Positions in a prompt: post-instruction tokens, and the last token of the instruction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Position:
    """Where in a prompt: post-instruction token `offset` (-1 is the prompt's last), or t_inst.

    t_inst, the last token of the instruction, has offset 0 here: it is no post-instruction token
    and is never counted among them.
    """

    offset: int

    @property
    def kind(self) -> str:
        return "t_inst" if self.offset == 0 else "post_instruction"

    @property
    def label(self) -> int | str:
        """What files and people call it: a negative number, or `t_inst`."""
        return "t_inst" if self.offset == 0 else self.offset

    @classmethod
    def parse(cls, label: int | str) -> Position:
        return T_INST if label == "t_inst" else cls(int(label))


T_INST = Position(0)
