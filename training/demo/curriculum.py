"""The curriculum: small pictures and simple scenes first, the model's full size last.

Full scenes at once do not converge in any reasonable time: what takes long is that a click finds its place.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: For progress and checkpoints.
        size: Side of the pictures in pixels, a multiple of 32.
        batch: Pictures of an update.
        objects: Prompts for each picture.
        updates: How many updates; the learning rate falls to a fiftieth over them along a cosine.
        rate: Learning rate of AdamW.
        easy: Share of simple compositions.
        real: Share of photographs among the other scenes.
        corrections: Corrective clicks on average.
    """

    name: str
    size: int
    batch: int
    objects: int
    updates: int
    rate: float
    easy: float
    real: float
    corrections: float


STAGES = (
    Stage("find", 128, 24, 2, 1500, 6e-4, easy=1.0, real=0.0, corrections=0.5),
    Stage("simple", 128, 24, 2, 1500, 5e-4, easy=0.8, real=0.3, corrections=0.5),
    Stage("scenes", 224, 8, 8, 5000, 3e-4, easy=0.1, real=0.6, corrections=1.5),
    Stage("large", 448, 2, 8, 3000, 1.5e-4, easy=0.1, real=0.6, corrections=1.5),
    Stage("full", 512, 2, 8, 2000, 1e-4, easy=0.1, real=0.65, corrections=2.0),
)
