"""The samplers, in torch: the catalogue, compiled schemes, noise, time grids and the sampling loop."""
