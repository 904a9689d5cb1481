"""Finding bundles by path or name."""

from __future__ import annotations

import contextlib
import os
import sysconfig
from os import PathLike
from pathlib import Path

from monai_unetpp.bundles.json_files import METADATA_FILE, read_object

#: Environment variable that names a folder of bundles.
BUNDLES_VARIABLE = "MONAI_UNETPP_BUNDLES"


def find_bundle(bundle: str | PathLike[str] | None) -> Path:
    """The folder of a bundle.

    Args:
        bundle: path of a bundle's folder, or a bundle's name or its beginning, if unambiguous. Names are searched for
            in the folder named by the environment variable ``MONAI_UNETPP_BUNDLES``, in ``bundles`` of the working
            directory, beside the package's source, and in the data installed with the package. None is refused with a
            list of bundles.

    Returns:
        The absolute path.

    Raises:
        FileNotFoundError: no such bundle; the message lists the searched folders and the bundles found.
        ValueError: an ambiguous beginning, or None; the message lists the bundles and the images they are for.
    """
    if bundle is None:
        raise ValueError(f"bundle must be named, as each is for one kind of image. Available: {_listed()}.")
    path = Path(bundle)
    if _is_bundle(path):
        return path.resolve()
    found = list_bundles()
    if str(bundle) in found:
        return found[str(bundle)]
    begun = [name for name in found if str(bundle) and name.startswith(str(bundle))]
    if len(begun) == 1 and not path.exists():
        return found[begun[0]]
    if path.is_dir():
        meant = f" For {begun[0]}, give the whole name." if len(begun) == 1 else ""
        raise FileNotFoundError(
            f"{path}: not the folder of a bundle. A bundle has configs/metadata.json and configs/inference.json.{meant}"
        )
    if len(begun) > 1:
        raise ValueError(
            f"bundle must be unambiguous, got {str(bundle)!r}: it may be {', '.join(begun)}. Give more of the name."
        )
    places = ", ".join(str(place) for place in _places())
    raise FileNotFoundError(
        f"bundle must be the folder or the name of a bundle, got {str(bundle)!r}. Looked in {places}; found "
        f"{', '.join(found) or 'none'}. Give the path of its folder, or set {BUNDLES_VARIABLE}."
    )


def list_bundles() -> dict[str, Path]:
    """All bundles that :func:`find_bundle` finds by name, with their absolute paths; the first of each name counts."""
    found: dict[str, Path] = {}
    for place in _places():
        # an unreadable folder must not hide other bundles
        with contextlib.suppress(OSError):
            for path in sorted(place.iterdir()):
                if _is_bundle(path):
                    found.setdefault(path.name, path.resolve())
    return found


def _listed() -> str:
    """All bundles with the images they are for."""
    takes = []
    for name, path in list_bundles().items():
        with contextlib.suppress(OSError, ValueError):
            images = read_object(path / METADATA_FILE).get("image_classes")
            takes.append(f"{name} ({images:.120})" if isinstance(images, str) else name)
    return "; ".join(takes) or f"none; set {BUNDLES_VARIABLE}"


def _places() -> list[Path]:
    named = os.environ.get(BUNDLES_VARIABLE)
    package_root = Path(__file__).resolve().parents[2]
    # pip installs data in an environment, with --user in the user's folders, with --target beside the package
    user_data = sysconfig.get_path("data", sysconfig.get_preferred_scheme("user"))
    places = [
        *([Path(os.path.expanduser(named))] if named else []),
        Path.cwd() / "bundles",
        package_root / "bundles",
        *(
            Path(data, "share", "monai-unetpp", "bundles")
            for data in (sysconfig.get_path("data"), user_data, package_root)
        ),
    ]
    return list(dict.fromkeys(places))


def _is_bundle(path: Path) -> bool:
    return any(os.path.isfile(path / "configs" / name) for name in ("metadata.json", "inference.json"))
