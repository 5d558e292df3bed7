"""What a person reads: the command line, the figures and the convergence report."""
