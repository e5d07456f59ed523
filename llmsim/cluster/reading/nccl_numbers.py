"""Numbers in the attributes of an NCCL topology XML."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element

from llmsim.errors import TopologyError


def number(element: Element, name: str, low: float, high: float, path: Path, unit: str = "") -> float:
    """The attribute as a number from low to high, a whole one where it has no unit.

    Raises `TopologyError`, which names the file, the element, the attribute and its value.
    """
    text = element.get(name, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or (not unit and value != int(value)):
        what = f"<{element.tag}> {name}: {text[:40]!r}"
        kind, unit = ("number", f" {unit}") if unit else ("whole number", "")
        accepted = f"expected a {kind} from {low:g} to {high:g}{unit}"
        raise TopologyError(f"{path}: {what} is not accepted; {accepted}")
    return value
