"""The one real `napari.yaml` lies at the top: a wheel gets a copy in the package, an editable install a link to it."""

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Called by hatchling before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the manifest where npe2 looks for it: inside the package."""
        manifest = Path(self.root, "napari.yaml")
        if version != "editable":
            build_data["force_include"][str(manifest)] = "napari_unet/napari.yaml"
            return
        link = Path(self.root, "src", "napari_unet", "napari.yaml")
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(manifest, link.parent))
        except OSError:  # Windows grants links to few
            shutil.copyfile(manifest, link)
