"""The only room with napari and Qt in it: gather, call the engine, show."""
