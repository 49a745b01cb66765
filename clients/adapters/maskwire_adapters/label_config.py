"""Label Studio's labelling configuration: which of its tags masks belong to."""

from dataclasses import dataclass
from xml.etree import ElementTree

from maskwire_core.http.problems import Problem

_FIELD = "label_config"
_TAGS = ("BrushLabels", "BitmaskLabels", "PolygonLabels", "VectorLabels")


@dataclass(frozen=True)
class Target:
    """The tags that masks belong to."""

    kind: str  # form of the masks, the tag's name in small letters: brushlabels, ...
    from_name: str  # name of the labels' tag
    to_name: str  # name of the image's tag
    value: str  # key of the image in a task's data


def find_target(config: str) -> Target:
    """Finds the tag for masks and its Image: the first BrushLabels of a configuration, else the first BitmaskLabels,
    PolygonLabels or VectorLabels, in this order.

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
    for name in _TAGS:
        for tag in root.iter(name):
            for to_name in tag.get("toName", "").split(","):
                if tag.get("name") and images.get(to_name, "").startswith("$"):
                    return Target(name.lower(), tag.get("name", ""), to_name, images[to_name][1:])
    raise Problem(
        400,
        f"the labelling configuration has no {', '.join(_TAGS[:-1])} or {_TAGS[-1]} with a name and the toName of an "
        '<Image name="..." value="$..."/>; add one to the project',
        "BAD_LABEL_CONFIG",
        _FIELD,
    )
