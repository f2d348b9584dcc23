"""papermill, which starts faster: `python -m reproduction.papermill NOTEBOOK EXECUTED ...`.

Left out is a grammar of addresses that jsonschema would compile at every start. It takes longer
than all else that papermill imports, and no notebook has such addresses.
"""

import sys

if __name__ == "__main__":
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # An import of it fails.
    from papermill.cli import papermill

    papermill()
