"""The checks: Gaussian targets, exact moments, order studies and verdicts, the CIFAR-10 spectrum."""
