"""Other tools' files: read into plain rows and mappings, or written from ours. Nothing is executed."""
