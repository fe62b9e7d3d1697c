"""`python -m napari_unet` is the command `napari-unet`."""

from napari_unet.cli import main

raise SystemExit(main())
