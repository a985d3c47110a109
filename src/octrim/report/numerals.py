"""Texts of numbers as people read them. The text of None is a dash."""

from __future__ import annotations

NONE = "–"
MINUS = "−"


def count(value: float | None) -> str:
    """A whole number with separators: 1,767,976."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Three digits and a unit: 1.77 M, 34.3 k, 744."""
    if value is None:
        return NONE
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size * 0.9995:
            return _digits(value / size) + unit
    return f"{value:.0f}" if value == round(value) else _digits(value)


def score(value: float | None) -> str:
    """A share of one, such as mAP: 0.624."""
    return NONE if value is None else f"{value:.3f}"


def change(value: float) -> str:
    """A difference of two shares, with its sign: +0.012, −0.070, ±0.000."""
    sign = "±"
    if abs(value) >= 0.0005:
        sign = MINUS if value < 0 else "+"
    return f"{sign}{abs(value):.3f}"


def times(value: float | None) -> str:
    """A ratio: 51.6×."""
    return NONE if value is None else f"{_digits(value)}×"


def milliseconds(value: float | None) -> str:
    """A time in milliseconds, without its unit: 12.8, 3.66, 0.450."""
    return NONE if value is None else _digits(value)


def megabytes(value: float | None) -> str:
    """A number of bytes in megabytes, without the unit: 7.15, 0.179."""
    return NONE if value is None else _digits(value / 1e6)


def percent(value: float | None) -> str:
    """A share of one in percent: 45.3 %."""
    return NONE if value is None else f"{100 * value:.1f} %"


def tiny(value: float | None) -> str:
    """A difference that is close to zero: 7.2 × 10⁻⁶."""
    if value is None:
        return NONE
    if value == 0 or abs(value) >= 0.01:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def duration(seconds: float) -> str:
    """A time, given in seconds: 25 min, 51 s, 1.8 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _digits(value: float) -> str:
    """A number with three significant digits, at most three of them behind the point."""
    for least, digits in ((99.95, 0), (9.995, 1), (0.9995, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}"
