"""OpenVINO without its telemetry, which would report each import over the network, unasked.

Where `openvino_telemetry` cannot be imported, OpenVINO takes a stub that does nothing. Everything of ours gets OpenVINO from here.
"""

import sys

_absent = "openvino_telemetry" not in sys.modules
if _absent:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to say that there is none
try:
    import openvino
    from openvino import opset15 as ops
finally:
    if _absent:
        del sys.modules["openvino_telemetry"]

__all__ = ["openvino", "ops"]
