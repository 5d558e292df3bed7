"""The data sets' names by the words of their commands; what `datasets` knows of them takes torch."""

NAMES = {"cifar10": "CIFAR-10", "celeba64": "CelebA-64", "afhqv2": "AFHQv2-128"}
RESIZED = ("celeba64", "afhqv2")  # of pictures of any shape; the images of the others have their side
