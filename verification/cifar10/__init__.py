"""The CIFAR-10 model: the network, its checkpoints, the data, and how a small one is trained."""
