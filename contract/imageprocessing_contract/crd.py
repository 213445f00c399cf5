"""The CustomResourceDefinition of ImageProcessingRequest, as it travels with this package."""

from importlib import resources

FILE = "imageprocessing.dev_imageprocessingrequests.yaml"


def crd_yaml() -> str:
    """Returns the text of the definition.

    In a clone `crds` is a symbolic link to the folder at the top, in a wheel a real folder.
    """
    return resources.files(__package__).joinpath("crds", FILE).read_text(encoding="utf-8")
