"""Files of commands: see `llmsim.files`."""

from llmsim.files import PICTURES, TABLES, check_output, read_table, write_table, write_text

__all__ = ["PICTURES", "TABLES", "check_output", "read_table", "write_table", "write_text"]
