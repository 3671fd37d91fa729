"""What can compute on this computer: what the system shows, joined with what plugins report.

Detection never fails and never hangs: every question is asked in a thread with a deadline.
"""

from __future__ import annotations

from ._merge import ComputeDevice, find_device, merge
from ._selection import DeviceDesk
from ._sysfs import system_devices

__all__ = ["ComputeDevice", "DeviceDesk", "find_device", "merge", "system_devices"]
