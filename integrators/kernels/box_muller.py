"""From two words of 32 random bits to a pair of normals: Box and Muller's formula, on a grid.

With the words w, a of an element (integrators.noise says which),

    u = (2 floor(w / 2) + 1) / 2^32          r = (-2 log u)^1/2          angle = 2 pi a / 2^32
    xi = r cos(angle)                        eta = r sin(angle),

u at the midpoints of 2^31 cells of (0, 1), its numerator rounded to the dtype once: a tier's uniforms have the same
bits as any other's. So |xi| <= (64 log 2)^1/2 = 6.66. The grid's bias: relative to the normal law's, E r^2, r^4 and r^6
are off by 1.6e-10, 4e-9 and 5e-8 (`BIAS`), in float64 as in float32, where u has 24 bits. The angle's moments are exact
up to the order 2^32, by symmetry.

A tier that has to vectorise evaluates the functions itself, without branches:

    u = 2^e (1 + f), f in [2^-1/2 - 1, 2^1/2 - 1],       log(1 + f) = 2 s LOG(s^2),  s = f / (2 + f)
    angle = pi q + (pi / 2) t, t in [-1, 1), q whole,    sin(pi t / 2) = t SIN(t^2),  cos(pi t / 2) = COS(t^2)

with polynomials that interpolate at Chebyshev's points of s^2 in [0, (3 - 8^1/2)^2] and t^2 in [0, 1], computed with 60
digits; their degrees are the least that leave less than the dtype's rounding. tests/test_noise.py computes them again.
"""

from __future__ import annotations

from typing import NamedTuple

# The relative error of E r^2, E r^4 and E r^6: E r^2k = 2^k k! where u is uniform.
BIAS = (-1.6e-10, -4e-9, -5e-8)


class Polynomials(NamedTuple):
    """Coefficients of LOG, SIN and COS, from the constant upwards."""

    log: tuple[float, ...]
    sin: tuple[float, ...]
    cos: tuple[float, ...]


SINGLE = Polynomials(
    log=(0.9999999993156591, 0.33333407669075593, 0.19987425258759525, 0.14962195239572493),
    sin=(1.5707963200386017, -0.6459637595835394, 0.0796899183290285, -0.0046741438381517775, 0.0001516717036640896),
    cos=(
        *(0.999999999779154, -1.2337005342322365, 0.2536693221726959),
        *(-0.02086268670922735, 0.0009177229241995567, -2.3824152439014107e-05),
    ),
)

DOUBLE = Polynomials(
    log=(
        *(1.0, 0.33333333333333826, 0.1999999999965117, 0.1428571438032084),
        *(0.11111098528363024, 0.09091815840114664, 0.07656264074182095, 0.07404855180327638),
    ),
    sin=(
        *(1.5707963267948966, -0.6459640975062462, 0.07969262624616565, -0.004681754135304255),
        *(0.0001604411847130916, -3.5988430204672576e-06, 5.6921364280986254e-08, -6.684416831856085e-10),
        5.87297574479995e-12,
    ),
    cos=(
        *(1.0, -1.2337005501361697, 0.253669507901048, -0.02086348076335242, 0.000919260274835918),
        *(-2.5202042359954066e-05, 4.7108744806670773e-07, -6.386561085053795e-09, 6.562384296775584e-11),
        -5.125127010709076e-13,
    ),
)
