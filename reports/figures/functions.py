"""What is shown of nonlinear targets; known without matplotlib, which takes its time to import."""

from __future__ import annotations

# The target that needs no sampling, and the functions shown, as they are written: without sampling, and sampled.
MIXTURE = "mixture"
FUNCTIONS = {"x^2": "$x^2$", "mode x > 0": r"$\Phi(4x)$"}
SAMPLED_FUNCTIONS = {"x^2": "$x^2$", "mode 1": "$r_1$"}
