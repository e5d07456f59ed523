"""How many links join each two GPUs of a node that has no switch."""

Mesh = tuple[tuple[int, ...], ...]

# DGX-1V: links between each two of its eight GPUs, as `nvidia-smi topo -m` prints them.
DGX1V_MESH = (
    (0, 1, 1, 2, 2, 0, 0, 0),
    (1, 0, 2, 1, 0, 2, 0, 0),
    (1, 2, 0, 2, 0, 0, 1, 0),
    (2, 1, 2, 0, 0, 0, 0, 1),
    (2, 0, 0, 0, 0, 1, 1, 2),
    (0, 2, 0, 0, 1, 0, 2, 1),
    (0, 0, 1, 0, 1, 2, 0, 2),
    (0, 0, 0, 1, 2, 1, 2, 0),
)


def mesh_of(scale_up: str, gpus: int, links: int, given: Mesh | None = None) -> Mesh | None:
    """The matrix of links of a node's GPUs; None where they meet at a switch or over PCIe.

    links: of one GPU. `ValueError` when a cube mesh of other than eight GPUs comes without its matrix.
    """
    if scale_up == "full-mesh":
        each = max(1, links // max(1, gpus - 1))
        return tuple(tuple(0 if i == j else each for j in range(gpus)) for i in range(gpus))
    if scale_up == "bridge-pairs":
        return tuple(tuple(links if i ^ 1 == j else 0 for j in range(gpus)) for i in range(gpus))
    if scale_up != "cube-mesh":
        return None
    mesh = given or (DGX1V_MESH if gpus == 8 else None)
    if mesh is None or len(mesh) != gpus:
        raise ValueError(f"expected a {gpus} by {gpus} matrix of links, one row for each of node.gpus")
    return mesh
