"""The order table of the catalogue: what each scheme claims, what is proven, and what was measured.

`weakorder schemes` prints it; `python -m weakorder.reports.pages.orders docs/gallery/orders.md` writes it into a file
between two marks, with the error constants that the proofs predict, and a test fails when the committed one is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...integrators.catalogue import all_schemes
from ...theory.scheme import Scheme
from ...verification.exact import T_END, gaussian_targets, predicted_errors, study_order

# Four levels of the default study: enough for an order, quick enough for a command that lists.
STEPS = (200, 400, 800, 1600)
# Of the documentation's table.
SHOWN = tuple(all_schemes().values())
BEGIN, END = "<!-- orders: begin -->", "<!-- orders: end -->"


def order_rows(schemes: Sequence[Scheme], model: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """Per scheme: its word, cost and symmetry, its claimed, proven and measured order, its W2 error constant at 1,600
    steps. model: parameters that are not the defaults of its diffusion."""
    rows = []
    for scheme in schemes:
        study = study_order(scheme, scheme.splitting.diffusion.parameters(**(model or {})), steps=STEPS)
        rows.append(
            {
                "name": scheme.name,
                "word": scheme.word,
                "splitting": scheme.splitting.name,
                "sub_flows": scheme.sub_flows,
                "nfe_per_step": scheme.nfe_per_step,
                "palindrome": scheme.is_palindrome,
                "order": scheme.order,
                "proven": study.proven,
                "measured": None if study.measured is None else study.measured.order,
                "constant": float(study.constants()[-1]),
                "reference": scheme.reference,
            }
        )
    return rows


def markdown(schemes: Sequence[Scheme]) -> str:
    """The order table of `schemes` in Markdown, at their defaults, with the predicted error constants."""
    lines = [
        "| scheme | one step | NFE/step | palindrome | proven order | measured order | error constant | predicted |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for scheme, row in zip(schemes, order_rows(schemes), strict=True):
        diffusion = scheme.splitting.diffusion
        targets = gaussian_targets(diffusion, diffusion.parameters())
        cells = (
            row["name"],
            f"`{row['word']}`" + ("" if scheme.flow == "euler" and scheme.holds_score else f", {row['sub_flows']}"),
            row["nfe_per_step"],
            "yes" if row["palindrome"] else "no",
            row["proven"],
            f"{row['measured']:.2f}",
            f"{row['constant']:.3g}",
            f"{predicted_errors(scheme, targets, T_END)['w2']:.3g}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def with_table(text: str, table: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """`text` with what stands between the marks replaced by the table. Raises ValueError if it has no marks."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"no place for the table; mark it with {marks[0]} and {marks[1]}")
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(), markdown(SHOWN)))
