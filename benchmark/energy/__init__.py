"""Energy one can trust: windows around work, joules with an uncertainty, a grade and a history. Torch-free; a library
of its own.

from benchmark.energy import EnergyTracer
with EnergyTracer("auto") as tracer, tracer.window("train") as window:
    work()
print(window.reading.joules, window.reading.ci95_joules, window.reading.grade)
"""

from benchmark.energy.acceptance.probing import probe
from benchmark.energy.judge.reading import Reading
from benchmark.energy.meters.device import Device, DeviceError, find_device, find_devices
from benchmark.energy.meters.lock import DeviceBusy, DeviceLock
from benchmark.energy.meters.meter import Meter
from benchmark.energy.timeline.samples import Sample
from benchmark.energy.windows.session import Options
from benchmark.energy.windows.tracer import EnergyTracer
from benchmark.energy.windows.window import EnergyError, Window

__all__ = [
    "Device",
    "DeviceBusy",
    "DeviceError",
    "DeviceLock",
    "EnergyError",
    "EnergyTracer",
    "Meter",
    "Options",
    "Reading",
    "Sample",
    "Window",
    "find_device",
    "find_devices",
    "probe",
]
