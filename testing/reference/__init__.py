"""sam2's own predictor and mask generator, which Maskwire's results are compared with."""

from testing.reference.torchvision_operators import declare

declare()  # before any module of this package imports sam2, which imports torchvision
