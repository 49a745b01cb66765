"""Label Studio's labelling configuration: which of its tags masks belong to."""

from dataclasses import dataclass
from xml.etree import ElementTree

from maskwire_core.http.problems import Problem

_FIELD = "label_config"


@dataclass(frozen=True)
class Target:
    """The tags that masks belong to."""

    kind: str  # form of the masks: brushlabels or polygonlabels
    from_name: str  # name of the labels' tag
    to_name: str  # name of the image's tag
    value: str  # key of the image in a task's data


def find_target(config: str) -> Target:
    """Finds the first BrushLabels of a configuration, else the first PolygonLabels, and their Image.

    Raises:
        Problem: BAD_LABEL_CONFIG: it is no XML, or has no such tags.
    """
    if "<!" in config.replace("<!--", ""):
        raise Problem(400, "a labelling configuration has no document type", "BAD_LABEL_CONFIG", _FIELD)
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise Problem(400, f"the labelling configuration is no XML: {error}", "BAD_LABEL_CONFIG", _FIELD) from error
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    for name in ("BrushLabels", "PolygonLabels"):
        for tag in root.iter(name):
            for to_name in tag.get("toName", "").split(","):
                if tag.get("name") and images.get(to_name, "").startswith("$"):
                    return Target(name.lower(), tag.get("name", ""), to_name, images[to_name][1:])
    raise Problem(
        400,
        "the labelling configuration has no BrushLabels or PolygonLabels with a name and the toName of an "
        '<Image name="..." value="$..."/>; add one to the project',
        "BAD_LABEL_CONFIG",
        _FIELD,
    )
