"""OpenAI's parameters and responses: the drop-in functions, and the translation that the gateway and batches share."""

from .functions import (
    aimage_edit as aimage_edit,
    aimage_generation as aimage_generation,
    image_edit as image_edit,
    image_generation as image_generation,
)
