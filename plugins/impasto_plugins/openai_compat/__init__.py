"""OpenAI's words to a provider's and back: the drop-in functions, and the translation that others share."""

from .functions import (
    aimage_edit as aimage_edit,
    aimage_generation as aimage_generation,
    image_edit as image_edit,
    image_generation as image_generation,
)
