"""`python -m memlab.cli`: the commands without the script that an installation makes."""

from memlab.cli import main

raise SystemExit(main())
