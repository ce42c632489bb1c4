"""``python -m galatea`` is the command ``galatea``."""

from galatea.cli import main

main(prog_name="galatea")
