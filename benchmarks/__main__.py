"""``python -m benchmarks training``, ``scoring`` or ``skipping``: a table of what was measured on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json

from monai_unetpp.devices import resolve_device
from monai_unetpp.files import write_text

KINDS = {
    "training": "time and memory of a training step, beside MONAI's BasicUNetPlusPlus",
    "scoring": "all levels from one pass, beside the deepest alone",
    "skipping": "what leaving out empty windows saves on a brain (needs the extra demo)",
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, and write the figures as JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="; ".join(f"{kind}: {text}" for kind, text in KINDS.items()))
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--quick", action="store_true", help="small networks and few repeats: to see that it works")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the figures to this file as JSON")
    given = parser.parse_args(arguments)
    # in a module of its own, as processes that measure memory import it by its name
    module = importlib.import_module(f"benchmarks.{given.kind}")
    measure, describe = (getattr(module, name.format(given.kind)) for name in ("measure_{}", "format_{}_benchmark"))
    result = measure(device=str(resolve_device(given.device)), **(module.QUICK if given.quick else {}))
    print(describe(result))
    if given.output is not None:
        write_text(given.output, json.dumps(dataclasses.asdict(result), indent=2) + "\n")


if __name__ == "__main__":
    main()
