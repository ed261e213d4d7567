"""OpenCV, which warps images and fits transforms; or one line that says how to install it."""

from types import ModuleType

from langfuse_jax.errors import UserError, reason


def opencv() -> ModuleType:
    """The module `cv2`. Raises UserError where it is missing or cannot be loaded."""
    try:
        import cv2
    except ImportError as error:  # the variant for desktops also fails without their libraries
        why = "" if isinstance(error, ModuleNotFoundError) else f" ({reason(error)})"
        raise UserError(f'aligning: requires OpenCV{why}; install it with pip install "langfuse-jax[align]"') from error
    return cv2
