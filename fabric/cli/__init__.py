"""The command line: ``fabric VERB CONFIG|RUN_DIR``."""
