"""`python -m lsp_charrnn` is `lsp-charrnn`."""

from lsp_charrnn.cli import main

if __name__ == "__main__":
    main()
