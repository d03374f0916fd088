"""Numbers as they are told: two digits are all that is meant."""


def counted(count: int, one: str, many: str) -> str:
    """With the word that fits."""
    return f"{count} {one if count == 1 else many}"


def short(value: float) -> str:
    """Rounded, with commas."""
    rounded = two_digits(value)
    return f"{rounded:,.0f}" if rounded >= 10 or rounded == round(rounded) else f"{rounded:g}"


def two_digits(value: float) -> float:
    """Rounded to two significant digits."""
    return float(f"{value:.2g}")
