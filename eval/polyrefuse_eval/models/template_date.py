"""The date that chat templates print: always the same, so that a run resumed tomorrow is the same run."""

from __future__ import annotations

from datetime import date

DATE = date(2024, 7, 26)
"""The date of templates that print one (Llama-3.1's default), so that a rendering never ages."""

_DIRECTIVES = ("%-d", "%-m", *(f"%{letter}" for letter in "aAbBcdHIjmMpSUwWxXyYZ"))
"""What `strftime_now` may be asked for."""

FIXED_CLOCK = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('{piece}', '{DATE.strftime(piece)}')" for piece in _DIRECTIVES)
    + " -}}{%- endmacro -%}"
)
"""Put before a template that asks for the time: a function of the same name that answers with `DATE`."""
