"""Numbers as the report prints them: at most three significant digits."""

MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """12,300, 65.2, 0.482; with a true minus sign, and no minus zero."""
    rounded = float(f"{value:.3g}") + 0.0
    text = f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
    return text.replace("-", MINUS)


def percent(share: float) -> str:
    """A share as a percentage: 12.3 %, 96 %."""
    return f"{number(round(100 * share, 1))}\N{NO-BREAK SPACE}%"
