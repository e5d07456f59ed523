"""Columns of a trace as arrays of codes: one look-up for each distinct value instead of one for each row."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def column_codes(column: "pd.Series") -> tuple[np.ndarray, list]:
    """(code of each row, value of each code) of a column, whatever its dtype; missing values have code -1."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), list(column.cat.categories)
    codes, values = pd.factorize(column)
    return codes, list(values)


def map_column(column: "pd.Series", mapping: dict, default: int = -1) -> np.ndarray:
    """Each row's `mapping[value]`, or `default`; one lookup per distinct value instead of one per row."""
    codes, values = column_codes(column)
    table = np.array([mapping.get(value, default) for value in values] + [default])
    return table[codes]
