"""Files of images and labels: read, recognize and write them with their geometry, or say what is wrong with them."""

__all__: list[str] = []
