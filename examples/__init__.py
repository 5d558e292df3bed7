"""Worked examples: samplers as people write them, which `weakorder verify` and `baseline` take as they are."""
