"""The mathematics, in sympy: the model, the splittings and their flows, the scheme language."""
