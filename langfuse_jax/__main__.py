"""`python -m langfuse_jax` is `langfuse-jax`."""

import sys

from langfuse_jax.cli import main

sys.exit(main())
