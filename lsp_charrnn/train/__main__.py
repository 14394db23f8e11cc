"""`python -m lsp_charrnn.train` is `lsp-charrnn train`, as torchrun wants it: `torchrun … -m lsp_charrnn.train`."""

import os
import sys

from lsp_charrnn.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    try:
        main()
    except SystemExit as end:
        if "WORLD_SIZE" not in os.environ:
            raise
        # A thread of gloo's may still be about to let go of a tensor. If the interpreter is being taken down by then,
        # that aborts the process (once in 25 times), and torchrun takes for a crash what had ended well.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))
