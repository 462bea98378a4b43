"""The words of AA-CLIP: its states and templates, and descriptive names of the classes of known data sets."""

from __future__ import annotations

from anomalib_clipad.text.prompts import PromptSet

AA_CLIP = PromptSet(
    normal=("{}", "a {}", "the {}"),
    abnormal=("a damaged {}", "a broken {}", "a {} with flaw", "a {} with defect", "a {} with damage"),
    templates=("{}.", "a photo of {}."),
)
_MPDD_WHITE = "white, elongated triangular metal bracket with a smooth, matte finish"
_MPDD_BROWN = "brown L-shaped metal bracket with smooth, glossy finish and multiple mounting holes along its arms"
DESCRIPTIVE = {
    "bottle": "dark bottle",
    "cable": "top view of three cables",
    "capsule": "black and orange capsule",
    "carpet": "gray carpet",
    "grid": "metal or plastic mesh",
    "hazelnut": "single brown hazelnut",
    "leather": "brown leather",
    "metal_nut": "metal nut which has four notched edges",
    "pill": "oval white pill with small red speckles and the letters 'FF' engraved",
    "screw": "screw",
    "tile": "speckled tile surface",
    "transistor": "a three-legged transistor placed vertically",
    "toothbrush": "toothbrush head",
    "wood": "wood surface",
    "zipper": "a black zipper",
    "candle": "candle",
    "pcb3": "infrared sensor pcb module",
    "capsules": "capsules",
    "pipe_fryum": "pipe-shaped fryum",
    "pcb4": "battery charging pcb module",
    "macaroni2": "scattered yellow macaroni",
    "pcb2": "integrated circuits board",
    "chewinggum": "chewing gum",
    "macaroni1": "orange macaroni",
    "cashew": "cashew nut",
    "fryum": "wheel-shaped fryum snack",
    "pcb1": "dual ultrasonic distance sensor pcb module",
    "connector": "metal clamps with black adjustment knobs",
    "tubes": "scattered metal objects",
    "metal_plate": "blue rectangular metal plate with a notch on one side",
    "bracket_white": _MPDD_WHITE,
    "bracket_brown": _MPDD_BROWN,
    "bracket_black": "black ornamental metal bracket with spiral design attached to a rectangular frame",
    "brain": "scan",
    "liver": "scan",
    "retina": "scan",
    "colon": "colon endoscopy image",
}
"""What the authors call the classes of MVTec AD, VisA, MPDD and of medical sets; another class goes by its own name."""


def described(class_name: str) -> str:
    """What AA-CLIP calls a class."""
    return DESCRIPTIVE.get(class_name, DESCRIPTIVE.get(class_name.lower(), class_name))
