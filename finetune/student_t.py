"""Student's t distribution by the regularised incomplete beta function, without scipy."""

import math

SMALLEST = 1e-300
TERMS = 500


def two_sided_p(t: float, degrees_of_freedom: float) -> float:
    """P(|T| ≥ |t|) with `degrees_of_freedom` > 0, not necessarily a whole number."""
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(
        degrees_of_freedom / 2, 0.5, degrees_of_freedom / (degrees_of_freedom + t * t)
    )


def critical_t(level: float, degrees_of_freedom: float) -> float:
    """The t whose two-sided p is `level`, 0 < level < 1."""
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees_of_freedom) > level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if two_sided_p(middle, degrees_of_freedom) > level else (low, middle)
        )
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction (Press et al., Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz's method."""

    def apart(value: float) -> float:
        return value if abs(value) > SMALLEST else SMALLEST

    c, d = 1.0, 1 / apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / apart(1 + term * d), apart(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return value
