"""Print the error of the collective model against published nccl-tests sweeps.

python benchmarks/collective_accuracy.py [--leave-one-out] [--file TABLE.csv]
"""

import argparse

from llmsim.evidence.measured.collective_accuracy import accuracy_table, leave_one_source_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leave-one-out", action="store_true", help="refit without each source; about a minute each")
    parser.add_argument("--file", default=None, help="another table with the columns of measured/collectives.csv")
    arguments = parser.parse_args()
    show("in sample", accuracy_table(arguments.file))
    if arguments.leave_one_out:
        show("each source predicted from the others", leave_one_source_out(arguments.file))


def show(title: str, rows: list[dict]) -> None:
    print(f"\n{title}\n{'by':<11}{'value':<62}{'n':>6}{'median':>9}{'p90':>9}{'bias':>9}")
    for row in rows:
        figures = "".join(f"{row[key]:>9.1%}" for key in ("median", "p90", "bias"))
        print(f"{row['by']:<11}{row['value'][:61]:<62}{row['n']:>6}{figures}")


if __name__ == "__main__":
    main()
